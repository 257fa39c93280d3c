import { Marked } from "./marked.js";

const LENGTH = 165; // about two lines
const LEAD = 45; // before the first marked word, for its sentence

// The part of a rendered text in which most of the query's words stand; its beginning where none does.
export function snippetOf(rendered) {
  const text = flat(rendered);
  if (text.length <= LENGTH) return { part: text, whole: true };
  const start = startOf(text, densest(text));
  const end = endOf(text, start + LENGTH);
  const part = text.slice(start, end);
  return {
    part: Marked.join([new Marked(start ? "…\u00a0" : ""), part, new Marked(end < text.length ? "\u00a0…" : "")], ""),
    whole: false,
  };
}

// On one line: white space as one blank, between blocks too.
function flat(rendered) {
  const letters = [];
  const at = [];
  const walker = document.createTreeWalker(rendered, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  let number = 0;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.nodeType === Node.ELEMENT_NODE) {
      if (node.localName === "mark") number += 1;
      else if (/^(p|h\d|li|pre|tr|td|th|br|blockquote)$/.test(node.localName) && letters.length) push(" ", 0);
    } else {
      const mark = node.parentElement?.localName === "mark" ? number : 0;
      for (const unit of node.data.split("")) push(unit, mark);
    }
  }
  function push(unit, mark) {
    const blank = /\s/.test(unit);
    if (blank && (!letters.length || letters.at(-1) === " ")) return;
    letters.push(blank ? " " : unit);
    at.push(mark);
  }
  return new Marked(letters.join(""), Int32Array.from(at)).trim();
}

// Where the stretch begins that has most different words, and of equal ones most marks.
function densest(text) {
  const spans = text.spans();
  // As far as their first letters tell, which inflections share.
  const words = spans.map(([start, end]) => text.text.slice(start, end).toLowerCase().slice(0, 5));
  let best = { start: 0, score: 0 };
  spans.forEach(([start], i) => {
    const found = new Set();
    let count = 0;
    for (let j = i; j < spans.length && spans[j][1] - start <= LENGTH - LEAD; j += 1) {
      found.add(words[j]);
      count += 1;
    }
    const score = found.size * 1000 + count;
    if (score > best.score) best = { start, score };
  });
  return best.start;
}

// The sentence's start, if it is near; else a word's.
function startOf(text, at) {
  if (at <= LEAD) return 0;
  const before = text.text.slice(at - LEAD, at);
  const sentence = Math.max(...[". ", "? ", "! ", ": "].map((end) => before.lastIndexOf(end)));
  const blank = before.indexOf(" ");
  const skipped = sentence >= 0 ? sentence + 2 : blank + 1;
  return whole(text, at - LEAD + skipped);
}

function endOf(text, at) {
  if (at >= text.length) return text.length;
  const blank = text.text.lastIndexOf(" ", at);
  return blank > at - LEAD ? blank : whole(text, at);
}

// Not between the two halves of a character.
const whole = (text, at) => (/[\udc00-\udfff]/.test(text.text[at] ?? "") ? at - 1 : at);
