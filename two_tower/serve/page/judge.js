// Which passages answer a question, as a person says: kept in this browser for each corpus, exported as qrels.

import { $, button, make, press } from "./dom.js";

const place = (corpus) => `judgements ${corpus}`;

// Query → passage's id → grade.
function read(corpus) {
  try {
    return JSON.parse(localStorage.getItem(place(corpus))) ?? {};
  } catch {
    return {};
  }
}

// Give a passage a grade, or take it back if it has this one. False where the browser keeps nothing.
export function judge(corpus, query, id, grade) {
  const all = read(corpus);
  const { [id]: before, ...others } = all[query] ?? {};
  all[query] = before === grade ? others : { ...others, [id]: grade };
  if (!Object.keys(all[query]).length) delete all[query];
  try {
    localStorage.setItem(place(corpus), JSON.stringify(all));
  } catch {
    return false;
  }
  return true;
}

// Show on every card what was said of it, and in the bar how much there is.
export function show(query, corpora) {
  for (const item of document.querySelectorAll("#columns li[data-id]")) {
    const grade = read(item.dataset.corpus)[query]?.[item.dataset.id];
    item.dataset.grade = grade ?? "";
    for (const one of item.querySelectorAll(":scope > .actions [data-grade]")) press(one, Number(one.dataset.grade) === grade);
  }
  $("judged").replaceChildren(...[...corpora].map(([corpus, name]) => bar(query, corpus, corpora.size > 1 ? name : "", corpora)));
}

function bar(query, corpus, name, corpora) {
  const all = read(corpus);
  const grades = Object.values(all).flatMap((own) => Object.values(own));
  const relevant = grades.filter(Boolean).length;
  const line = make("p", "", name ? `${name}: ` : "");
  const queries = Object.keys(all).length;
  line.append(grades.length
    ? `${relevant} relevant, ${grades.length - relevant} not, of ${queries} ${queries === 1 ? "question" : "questions"} `
    : "Say of each passage whether it answers the question. ");
  if (!grades.length) return line;
  const exporter = button("Export");
  exporter.addEventListener("click", () => open(all));
  const forget = button("Forget all");
  forget.addEventListener("click", () => {
    if (!confirm(`Forget ${grades.length} judgements?`)) return;
    localStorage.removeItem(place(corpus));
    show(query, corpora);
  });
  line.append(exporter, " ", forget);
  return line;
}

// Equal questions have equal ids, in any browser and at any time: FNV-1a of their bytes, 64 bits.
function idOf(query) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(query)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return `judged-${hash.toString(16).padStart(16, "0")}`;
}

function rowsOf(all) {
  return Object.entries(all).flatMap(([query, own]) => Object.entries(own).map(([id, grade]) => [idOf(query), id, grade]));
}

function open(all) {
  const rows = rowsOf(all);
  const lines = (each) => each.map((line) => `${line}\n`).join("");
  $("qrels").value = lines(rows.map(([query, id, grade]) => [query, 0, id, grade].join("\t")));
  offer($("qrels-file"), lines(["query-id\tcorpus-id\tscore", ...rows.map((row) => row.join("\t"))]));
  offer($("queries-file"), lines(Object.keys(all).map((query) => JSON.stringify({ _id: idOf(query), text: query }))));
  $("copied").textContent = "";
  $("export").showModal();
}

function offer(anchor, content) {
  URL.revokeObjectURL(anchor.href);
  anchor.href = URL.createObjectURL(new Blob([content]));
}

// The clipboard is there on secure pages only; elsewhere the lines are marked, for Ctrl-C.
export async function copy() {
  $("qrels").select();
  try {
    await navigator.clipboard.writeText($("qrels").value);
    $("copied").textContent = "Copied.";
  } catch {
    $("copied").textContent = document.execCommand("copy") ? "Copied." : "Press Ctrl-C.";
  }
}
