// Passages as cards: one column of pages for readers, columns of ranks for who compares.

import { button, link, make, written } from "./dom.js";
import { atHeading, pageOf, placeOf, sourceOf } from "./links.js";
import { isMarkdown, markdown } from "./markdown.js";
import { Marked } from "./marked.js";
import { snippetOf } from "./snippet.js";

// The list of one answer, with the passages of a page together: the best one shows, the others under it.
export function results({ answer, way }, open) {
  const list = make("ol", "hits");
  const pages = new Map();
  for (const hit of answer.hits) {
    const page = pageOf(hit.fields) ?? `passage ${hit.id}`;
    pages.set(page, [...(pages.get(page) ?? []), hit]);
  }
  for (const [first, ...others] of pages.values()) {
    const item = list.appendChild(card(first, way, open));
    item.querySelector(".actions").append(details(first, way));
    if (others.length) item.append(more(others, item, way, open));
  }
  return list;
}

function more(hits, first, way, open) {
  const shown = make("details", "more");
  const list = make("ol", "hits");
  for (const hit of hits) {
    const item = list.appendChild(card(hit, way, open));
    item.querySelector(".actions").append(details(hit, way));
    if (placeIn(item)?.textContent === placeIn(first)?.textContent) placeIn(item)?.remove();
  }
  shown.append(make("summary", "", `${hits.length} more from this page`), list);
  return shown;
}

const placeIn = (item) => item.querySelector(":scope > .place");

// A column of its own for one of several answers, with the ranks that the others give.
export function column({ way, answer }, others, open) {
  const section = make("section");
  section.setAttribute("aria-label", way.title);
  const head = section.appendChild(make("h2", "", `${way.title} `));
  section.append(...notes(answer));
  if (answer.problem) return section;
  head.append(make("small", "", `${answer.milliseconds.toFixed(0)} ms`));
  const list = section.appendChild(make("ol", "hits"));
  for (const hit of answer.hits) {
    const elsewhere = others.filter((other) => other.answer.hits).map((other) => {
      const twin = other.answer.hits.find((candidate) => candidate.id === hit.id);
      return `${other.way.title}: ${twin ? twin.rank : "–"}`;
    });
    const item = list.appendChild(card(hit, way, open));
    item.prepend(facts(hit, elsewhere));
    for (const [event, on] of [["mouseenter", true], ["mouseleave", false], ["focusin", true], ["focusout", false]]) {
      item.addEventListener(event, () => twins(item, on));
    }
  }
  return section;
}

function twins(item, on) {
  for (const other of document.querySelectorAll("#columns li[data-id]")) {
    other.classList.toggle("same", on && other !== item && other.dataset.id === item.dataset.id);
  }
}

// What is to be said of an answer before its passages.
export function notes(answer) {
  if (answer.problem) return [make("p", "note problem", answer.problem)];
  const sentences = [...answer.notes];
  if (!answer.hits.length && !sentences.length) sentences.push("Nothing found.");
  return sentences.map((sentence) => make("p", "note", sentence));
}

function card(hit, way, open) {
  const item = make("li");
  item.tabIndex = -1; // the arrow keys lead here, Tab to what is in it
  item.dataset.id = hit.id;
  item.dataset.corpus = way.corpus;
  const source = sourceOf(hit.fields);
  const address = source && atHeading(open(source.address), hit.title);
  const place = placeOf(hit.fields, open);
  if (hit.title || address) item.append(heading(hit, address, place));
  if (place && hit.title) item.append(written(make("p", "place", place)));
  item.append(...text(hit, item, (link) => open(link, source?.address)));
  return item;
}

function heading(hit, address, place) {
  const title = written(make("h3"));
  const inner = address ? title.appendChild(link(address)) : title;
  if (hit.title) Marked.of(hit.title, hit.title_marks).appendTo(inner);
  else inner.textContent = place;
  return title;
}

// A snippet and, in its place once it is asked for, the whole text.
function text(hit, item, open) {
  const marked = Marked.of(hit.text, hit.marks);
  const whole = isMarkdown(hit.text, hit.fields) ? markdown(marked, open) : marked.appendTo(make("div", "text"));
  const { part, whole: isShort } = snippetOf(whole);
  const snippet = written(part.appendTo(make("p", "snippet")));
  written(whole).hidden = true;
  const actions = make("div", "actions");
  const opener = button("Whole text");
  const show = (on) => {
    item.classList.toggle("whole", on);
    whole.hidden = !on;
    snippet.hidden = on;
    opener.setAttribute("aria-expanded", on);
  };
  show(false);
  opener.addEventListener("click", () => show(whole.hidden));
  item.addEventListener("toggle-text", () => show(whole.hidden));
  item.addEventListener("click", (event) => {
    if (!String(getSelection()) && event.target.closest("li") === item && !event.target.closest("a, button, summary, dl")) {
      show(whole.hidden);
    }
  });
  if (!isShort || whole.querySelector("pre, table, ul, ol, h4, a")) actions.append(opener);
  actions.append(judging());
  return [snippet, whole, actions];
}

// Two buttons that show while the page is judged; see judge.js.
function judging() {
  const group = make("span", "grades");
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Judgement");
  for (const [grade, name] of [[1, "Relevant"], [0, "Not relevant"]]) {
    const one = group.appendChild(button(name, false));
    one.dataset.grade = grade;
  }
  return group;
}

// Rank, score, id and fields: beside each other for who compares, else behind a word.
function facts(hit, elsewhere) {
  const line = make("p", "facts");
  line.append(make("span", "rank", `${hit.rank}`), make("span", "score", hit.score.toFixed(3)));
  if (hit.id !== hit.title) line.append(make("span", "id", hit.id));
  for (const other of elsewhere) line.append(make("span", "other", other));
  for (const [name, value] of fieldsOf(hit)) line.append(written(make("span", "field", `${name}: ${value}`)));
  return line;
}

function details(hit, way) {
  const element = make("details", "details");
  const list = make("dl");
  const rows = [["rank", `${hit.rank} by ${way.title}`], ["score", hit.score.toFixed(3)], ["id", hit.id], ...fieldsOf(hit)];
  for (const [name, value] of rows) list.append(make("dt", "", name), written(make("dd", "", `${value}`)));
  element.append(make("summary", "", "Details"), list);
  return element;
}

function fieldsOf(hit) {
  const shown = sourceOf(hit.fields)?.field;
  return Object.entries(hit.fields).filter(([name, value]) => name !== shown && value !== null);
}
