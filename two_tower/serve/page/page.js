"use strict";

// Everything that comes from outside goes through textContent: passages may hold markup.
const $ = (id) => document.getElementById(id);
const make = (tag, className = "", text = "") => {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
};

// In the language of the text, which may run from right to left.
const written = (element) => {
  element.dir = "auto";
  return element;
};

let ways = [];
let latest = 0; // an answer that comes after a newer question is not shown

async function ask(path) {
  const response = await fetch(path);
  const body = await response.json().catch(() => ({ detail: `The service answered with status ${response.status}.` }));
  if (!response.ok) throw new Error(body.detail);
  return body;
}

// One column for each run, one for BM25 over each corpus, one for each run fused with BM25.
function waysOf(runs) {
  const corpora = new Map();
  for (const run of runs) if (!corpora.has(run.corpus)) corpora.set(run.corpus, run);
  const several = corpora.size > 1;
  return [
    ...runs.map((run) => ({ id: run.name, run: run.name, mode: "dense", title: run.name })),
    ...[...corpora.values()].filter((run) => run.modes.includes("bm25"))
      .map((run) => ({ id: `${run.name}:bm25`, run: run.name, mode: "bm25", title: several ? `BM25 (${run.name})` : "BM25" })),
    ...runs.filter((run) => run.modes.includes("hybrid"))
      .map((run) => ({ id: `${run.name}:hybrid`, run: run.name, mode: "hybrid", title: `${run.name} + BM25` })),
  ];
}

function showWays(chosen) {
  for (const way of ways) {
    const label = make("label");
    const box = make("input");
    box.type = "checkbox";
    box.name = "in";
    box.value = way.id;
    box.checked = chosen.includes(way.id);
    box.addEventListener("change", () => search(true));
    label.append(box, way.title);
    $("ways").append(label);
  }
}

const chosenWays = () => ways.filter((way) => [...$("ways").querySelectorAll(":checked")].some((box) => box.value === way.id));

// Marks count Unicode code points, JavaScript's strings count UTF-16 units.
function marked(element, text, marks) {
  const points = Array.from(text);
  let end = 0;
  for (const [first, last] of marks) {
    element.append(points.slice(end, first).join(""), make("mark", "", points.slice(first, last).join("")));
    end = last;
  }
  element.append(points.slice(end).join(""));
  return element;
}

// The field that says where a passage is to be read. Nothing but http: a link may run a script.
function linkOf(fields) {
  const of = (name) => Object.keys(fields).find((key) => key.toLowerCase() === name && /^https?:\/\/\S+$/i.test(fields[key]));
  return ["url", "link", "source"].map(of).find(Boolean);
}

function heading(hit, url) {
  const title = written(make("h3"));
  const inner = url ? title.appendChild(make("a")) : title;
  if (url) {
    inner.setAttribute("href", url);
    inner.setAttribute("rel", "noopener");
    inner.setAttribute("target", "_blank");
  }
  if (hit.title) marked(inner, hit.title, hit.title_marks);
  else inner.textContent = url;
  return title;
}

function card(hit, elsewhere) {
  const item = make("li");
  item.tabIndex = 0;
  item.dataset.id = hit.id;
  const facts = make("div", "facts");
  facts.append(make("span", "rank", `${hit.rank}`), make("span", "score", hit.score.toFixed(3)));
  if (hit.id !== hit.title) facts.append(make("span", "id", hit.id));
  for (const other of elsewhere) facts.append(make("span", "other", other));
  const link = linkOf(hit.fields);
  for (const [name, value] of Object.entries(hit.fields)) {
    if (name !== link && value !== null) facts.append(written(make("span", "field", `${name}: ${value}`)));
  }
  item.append(facts);
  if (hit.title || link) item.append(heading(hit, hit.fields[link]));
  item.append(marked(written(make("p", "text")), hit.text, hit.marks));
  item.addEventListener("click", (event) => {
    if (!String(getSelection()) && !event.target.closest("a")) item.classList.toggle("whole");
  });
  const same = (on) => {
    for (const twin of document.querySelectorAll("li")) twin.classList.toggle("same", on && twin !== item && twin.dataset.id === hit.id);
  };
  item.addEventListener("mouseenter", () => same(true));
  item.addEventListener("mouseleave", () => same(false));
  item.addEventListener("focus", () => same(true));
  item.addEventListener("blur", () => same(false));
  return item;
}

function column(way, answer, others) {
  const section = make("section");
  section.setAttribute("aria-label", way.title);
  const head = make("h2", "", `${way.title} `);
  section.append(head);
  if (answer.problem) {
    section.append(make("p", "note", answer.problem));
    return section;
  }
  head.append(make("small", "", `${answer.milliseconds.toFixed(0)} ms`));
  for (const note of answer.notes) section.append(make("p", "note", note));
  if (!answer.hits.length && !answer.notes.length) section.append(make("p", "note", "Nothing found."));
  const list = make("ol");
  for (const hit of answer.hits) {
    const elsewhere = others.filter((other) => other.answer.hits).map(({ way: { title }, answer: { hits } }) => {
      const twin = hits.find((candidate) => candidate.id === hit.id);
      return twin ? `${title}: ${twin.rank}` : `${title}: –`;
    });
    list.append(card(hit, elsewhere));
  }
  section.append(list);
  return section;
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

async function search(remember) {
  const query = $("query").value.trim();
  const k = $("k").value || "10";
  const chosen = chosenWays();
  const filters = $("filter").value.split(/\s+and\s+/i).map((each) => each.trim()).filter(Boolean);
  const parameters = new URLSearchParams({ q: query, k });
  for (const filter of filters) parameters.append("filter", filter);
  for (const way of chosen) parameters.append("in", way.id);
  if (remember && `?${parameters}` !== location.search) history.pushState(null, "", `?${parameters}`);
  document.title = query ? `${query} – Two-tower search` : "Two-tower search";
  const mine = ++latest;
  if (!query || !chosen.length) {
    $("columns").replaceChildren();
    say(query ? "Choose what to search with." : "");
    return;
  }
  say("Searching …");
  const answers = await Promise.all(chosen.map((way) => answerOf(way, query, k, filters)));
  if (mine !== latest) return;
  const found = chosen.map((way, i) => ({ way, answer: answers[i] }));
  $("columns").replaceChildren(...found.map((one) => column(one.way, one.answer, found.filter((other) => other !== one))));
  say(summary(answers.filter((answer) => answer.hits)), false);
}

// How far the columns agree.
function summary(answers) {
  if (answers.length < 2) return answers.length ? `${answers[0].hits.length} passages` : "";
  const [first, ...rest] = answers.map((answer) => new Set(answer.hits.map((hit) => hit.id)));
  const common = [...first].filter((id) => rest.every((ids) => ids.has(id)));
  const most = Math.max(...answers.map((answer) => answer.hits.length));
  return `${common.length} of ${most} passages are in every column`;
}

function move(down, right) {
  const lists = [...document.querySelectorAll("main section")].map((section) => [...section.querySelectorAll("li")]);
  const active = document.activeElement.closest("li"); // or a link in it
  const at = lists.findIndex((list) => list.includes(active));
  if (at < 0) {
    if (down > 0) lists.find((list) => list.length)?.[0].focus();
    return;
  }
  const row = lists[at].indexOf(active);
  if (row === 0 && down < 0) {
    $("query").focus();
    return;
  }
  let list = at + right; // columns without passages are passed over
  while (lists[list] && !lists[list].length) list += right;
  const to = lists[list] ?? lists[at];
  to[Math.min(row + down, to.length - 1)]?.focus();
}

const MOVES = { ArrowDown: [1, 0], j: [1, 0], ArrowUp: [-1, 0], k: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function key(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  const typing = event.target instanceof HTMLInputElement && event.target.type !== "checkbox";
  if (typing && !(event.target === $("query") && event.key === "ArrowDown")) return;
  if (event.key === "/" || event.key === "Escape") {
    $("query").focus();
    $("query").select();
  } else if (event.key === "Enter" && event.target.matches("li")) {
    event.target.classList.toggle("whole");
  } else if (event.key in MOVES) {
    move(...MOVES[event.key]);
  } else {
    return;
  }
  event.preventDefault();
}

// What the address says, so that a search can be kept and sent, and "back" leads back.
function read() {
  const parameters = new URLSearchParams(location.search);
  $("query").value = parameters.get("q") ?? "";
  $("k").value = parameters.get("k") ?? "10";
  $("filter").value = parameters.getAll("filter").join(" and ");
  const chosen = parameters.getAll("in");
  for (const box of $("ways").querySelectorAll("input")) if (chosen.length) box.checked = chosen.includes(box.value);
}

async function begin() {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    search(true);
  });
  document.addEventListener("keydown", key);
  addEventListener("popstate", () => {
    read();
    search(false);
  });
  try {
    const runs = await ask("runs");
    ways = waysOf(runs);
    // Every run beside BM25.
    showWays(ways.filter((way) => way.mode === "bm25").slice(0, 1).concat(ways.filter((way) => way.mode === "dense").slice(0, 2)).map((way) => way.id));
    say(runs.map((run) => `${run.name}: ${run.passages.toLocaleString("en")} passages`).join(" · "));
  } catch (error) {
    say(`The service cannot be reached: ${error.message}`, true);
    return;
  }
  read();
  if ($("query").value) search(false);
}

begin();
