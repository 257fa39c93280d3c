// The page: what it asks the service, where it shows the answers, and the address that says both.

import { $, isPressed, make, press } from "./dom.js";
import { column, notes, results } from "./hits.js";
import { copy, judge, show as showJudgements } from "./judge.js";
import { listen } from "./keys.js";
import { opener } from "./links.js";

const STEP = 10; // passages, and as many more
let ways = [];
let best = ""; // the way that the page opens with
let open = () => null; // see links.js
let latest = 0; // an answer that comes after a newer question is not shown

async function ask(path) {
  const response = await fetch(path);
  const body = await response.json().catch(() => ({ detail: `The service answered with status ${response.status}.` }));
  if (!response.ok) throw new Error(body.detail);
  return body;
}

// Each run, BM25 over each corpus, each run fused with BM25.
function waysOf(runs) {
  const corpora = [...corporaOf(runs).values()];
  const way = (run, mode, title) => ({ id: mode === "dense" ? run.name : `${run.name}:${mode}`, run: run.name, corpus: run.corpus, mode, title });
  return [
    ...runs.map((run) => way(run, "dense", run.name)),
    ...corpora.filter((run) => run.modes.includes("bm25"))
      .map((run) => way(run, "bm25", corpora.length > 1 ? `BM25 (${run.name})` : "BM25")),
    ...runs.filter((run) => run.modes.includes("hybrid")).map((run) => way(run, "hybrid", `${run.name} + BM25`)),
  ];
}

// Corpus → the first run that searches it.
function corporaOf(runs) {
  const corpora = new Map();
  for (const run of runs) if (!corpora.has(run.corpus)) corpora.set(run.corpus, run);
  return corpora;
}

function showWays() {
  for (const way of ways) {
    const option = $("way").appendChild(make("option", "", way.title));
    option.value = way.id;
    const label = $("ways").appendChild(make("label"));
    const box = label.appendChild(make("input"));
    box.type = "checkbox";
    box.value = way.id;
    box.addEventListener("change", () => search(true));
    label.append(way.title);
  }
  $("way").hidden = ways.length < 2;
  $("compare").hidden = ways.length < 2;
  $("way").value = best;
}

function welcome(runs) {
  const corpora = [...corporaOf(runs).values()];
  const count = (run) => `${run.passages.toLocaleString("en")} passages`;
  const names = (corpus) => runs.filter((run) => run.corpus === corpus).map((run) => run.name).join(", ");
  for (const run of corpora) $("welcome").append(make("p", "", `Search ${count(run)} with ${names(run.corpus)}.`));
  const { examples } = runs[0]; // for which the page opens
  if (!examples.length) return;
  const list = make("ul");
  for (const example of examples) {
    const link = list.appendChild(make("li")).appendChild(make("a", "", example));
    link.dir = "auto";
    link.href = `?${new URLSearchParams({ q: example })}`;
  }
  $("welcome").append(make("p", "", "For example:"), list);
}

const isComparing = () => isPressed($("compare"));
const boxes = () => [...$("ways").querySelectorAll("input")];

function chosenWays() {
  if (!isComparing()) return ways.filter((way) => way.id === $("way").value);
  return ways.filter((way) => boxes().some((box) => box.checked && box.value === way.id));
}

// What is shown now beside BM25 and the first two runs.
function usualComparison() {
  const [first, second] = ways.filter((way) => way.mode === "dense");
  return [$("way").value, ways.find((way) => way.mode === "bm25")?.id, first?.id, second?.id];
}

function setComparing(on) {
  press($("compare"), on);
  $("ways").hidden = !on;
  document.body.classList.toggle("comparing", on);
}

function setJudging(on) {
  press($("judge"), on);
  $("judged").hidden = !on;
  document.body.classList.toggle("judging", on);
}

function setFolded(folded) {
  $("options").hidden = folded;
  $("fold").setAttribute("aria-expanded", !folded);
}

async function answerOf(way, query, k, filters) {
  const start = performance.now();
  try {
    const parameters = new URLSearchParams({ q: query, k, run: way.run, mode: way.mode });
    for (const filter of filters) parameters.append("filter", filter);
    const answer = await ask(`search?${parameters}`);
    return { ...answer, milliseconds: performance.now() - start };
  } catch (error) {
    return { problem: error.message };
  }
}

function say(text, problem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("problem", problem);
}

const queryNow = () => $("query").value.trim();
const filtersNow = () => $("filter").value.split(/\s+and\s+/i).map((each) => each.trim()).filter(Boolean);

// What the page shows now; the usual is left out.
function addressNow() {
  const parameters = new URLSearchParams();
  if (queryNow()) parameters.set("q", queryNow());
  if ($("k").value !== String(STEP)) parameters.set("k", $("k").value);
  for (const filter of filtersNow()) parameters.append("filter", filter);
  if (isComparing()) parameters.set("compare", "1");
  if (isComparing() || $("way").value !== best) for (const way of chosenWays()) parameters.append("in", way.id);
  if (isPressed($("judge"))) parameters.set("judge", "1");
  return parameters.size ? `?${parameters}` : "";
}

function remember() {
  const address = addressNow();
  if (address !== location.search) history.pushState(null, "", address || location.pathname);
}

async function search(keep) {
  const query = queryNow();
  const k = $("k").value || STEP;
  const chosen = chosenWays();
  if (keep) remember();
  document.title = query ? `${query} – Two-tower search` : "Two-tower search";
  document.body.classList.toggle("empty", !query);
  $("welcome").hidden = Boolean(query);
  const mine = ++latest;
  if (!query || !chosen.length) {
    $("columns").replaceChildren();
    $("further").hidden = true;
    say(query ? "Choose what to search with." : "");
    return;
  }
  say("Searching …");
  const answers = await Promise.all(chosen.map((way) => answerOf(way, query, k, filtersNow())));
  if (mine !== latest) return;
  showFound(chosen.map((way, i) => ({ way, answer: answers[i] })));
  judgementsNow();
}

function showFound(found) {
  const [{ way, answer }] = found;
  const most = Math.max(...found.map((one) => one.answer.hits?.length ?? 0));
  if (isComparing()) {
    $("columns").replaceChildren(...found.map((one) => column(one, found.filter((other) => other !== one), open)));
  } else {
    const section = make("section");
    section.setAttribute("aria-label", "Results");
    section.append(make("h2", "unseen", "Results"), ...notes(answer), ...(answer.hits ? [results({ way, answer }, open)] : []));
    $("columns").replaceChildren(section);
  }
  $("further").hidden = most < Number($("k").value) || most >= Number($("k").max);
  say(summary(found.map((one) => one.answer).filter((one) => one.hits)));
}

// How many there are, or how far the columns agree.
function summary(answers) {
  const count = (passages) => `${passages} ${passages === 1 ? "passage" : "passages"}`;
  if (answers.length < 2) return answers.map(({ hits, milliseconds }) => `${count(hits.length)} in ${milliseconds.toFixed(0)} ms`).join("");
  const [first, ...rest] = answers.map((answer) => new Set(answer.hits.map((hit) => hit.id)));
  const common = [...first].filter((id) => rest.every((ids) => ids.has(id)));
  const most = Math.max(...answers.map((answer) => answer.hits.length));
  return `${common.length} of ${count(most)} are in every column`;
}

function judgementsNow() {
  showJudgements(queryNow(), new Map(chosenWays().map((way) => [way.corpus, way.run])));
}

// What the address says, so that a search can be kept and sent, and "back" leads back.
function read() {
  const parameters = new URLSearchParams(location.search);
  const chosen = parameters.getAll("in").filter((id) => ways.some((way) => way.id === id));
  $("query").value = parameters.get("q") ?? "";
  $("k").value = parameters.get("k") ?? STEP;
  $("filter").value = parameters.getAll("filter").join(" and ");
  setFolded(!$("filter").value && $("k").value === String(STEP));
  setJudging(parameters.has("judge"));
  setComparing(parameters.has("compare") || chosen.length > 1);
  if (!isComparing()) $("way").value = chosen[0] ?? best;
  for (const box of boxes()) box.checked = chosen.includes(box.value);
}

function connect() {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    search(true);
  });
  $("way").addEventListener("change", () => search(true));
  $("fold").addEventListener("click", () => setFolded(!$("options").hidden));
  $("compare").addEventListener("click", () => {
    setComparing(!isComparing());
    if (isComparing() && !boxes().some((box) => box.checked)) {
      const usual = usualComparison();
      for (const box of boxes()) box.checked = usual.includes(box.value);
    }
    search(true);
  });
  $("judge").addEventListener("click", () => {
    setJudging(!isPressed($("judge")));
    remember();
    judgementsNow();
  });
  $("columns").addEventListener("click", (event) => {
    const grade = event.target.closest("[data-grade]:not(li)")?.dataset.grade;
    if (grade === undefined || !isPressed($("judge"))) return;
    const item = event.target.closest("li[data-id]");
    const kept = judge(item.dataset.corpus, queryNow(), item.dataset.id, Number(grade));
    if (!kept) say("This browser lets the page keep nothing, so it cannot judge.", true);
    judgementsNow();
  });
  $("further").addEventListener("click", () => {
    $("k").value = Math.min(Number($("k").value) + STEP, Number($("k").max));
    search(true);
  });
  $("help-opener").addEventListener("click", () => $("help").showModal());
  $("copy").addEventListener("click", copy);
  addEventListener("popstate", () => {
    read();
    search(false);
  });
  listen();
}

async function begin() {
  connect();
  try {
    const runs = await ask("runs");
    const [first] = runs;
    ways = waysOf(runs);
    best = first.best === "dense" ? first.name : `${first.name}:${first.best}`;
    open = opener(first.files);
    $("k").max = first.max_k;
    showWays();
    welcome(runs);
  } catch (error) {
    say(`The service cannot be reached: ${error.message}`, true);
    return;
  }
  read();
  search(false);
}

begin();
