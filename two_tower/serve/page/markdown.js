// Markdown as elements, with the marks in it: the blocks and spans that documentation has, and HTML as the text it is.

import { make } from "./dom.js";
import { Marked } from "./marked.js";
import { spans } from "./spans.js";

const DEPTH = 8; // of lists and quotations; deeper ones are paragraphs
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const INDENTED = /^(?: {4}|\t)/;
const HEADING = /^ {0,3}(#{1,6})(?:\s|$)/;
const UNDERLINE = /^ {0,3}(?:=+|-{2,})\s*$/;
const RULE = /^ {0,3}([-*_])\s*(?:\1\s*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?: +|$)/;
const COLUMNS = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

const FILE = /\.(?:md|markdown)(?:#.*)?$/is;
const SIGNS = [
  /^ {0,3}(?:#{2,6} \S|```|~~~)/m,
  /^\|.*\|[ \t]*\n\|? *:?-+/m,
  /(?<![\w\])])\[[^\]\n]{1,200}\]\((?:https?:|[#/.]|[\w-]+[/.])[^()\s]{0,1000}\)/,
];

// Whether a passage is Markdown: it comes from such a file, or has signs of it that plain text seldom has.
export function isMarkdown(text, fields) {
  return Object.values(fields).some((value) => typeof value === "string" && FILE.test(value)) || SIGNS.some((sign) => sign.test(text));
}

// `open` makes an address in the text one that may be linked, or null.
export function markdown(text, open) {
  const root = make("div", "text markdown");
  blocks(text.lines(), root, { open, depth: 0 });
  return root;
}

function blocks(lines, parent, context) {
  if (context.depth > DEPTH) {
    parent.append(paragraphOf(lines, context));
    return;
  }
  for (let i = 0; i < lines.length;) {
    if (!lines[i].text.trim()) i += 1;
    else i = BLOCKS.reduce((next, block) => next || block(lines, i, parent, context), 0);
  }
}

// Each of these takes the lines from i on that are such a block, and says where the next begins; 0 if there is none.

function fenced(lines, i, parent) {
  const fence = FENCE.exec(lines[i].text)?.[1];
  if (!fence) return 0;
  const closes = (line) => line.text.trim().startsWith(fence) && !line.text.trim().replaceAll(fence[0], "");
  const own = lines.slice(i + 1);
  const end = own.findIndex(closes);
  parent.append(code(end < 0 ? own : own.slice(0, end)));
  return end < 0 ? lines.length : i + end + 2;
}

function indented(lines, i, parent) {
  let end = i;
  while (end < lines.length && (INDENTED.test(lines[end].text) || !lines[end].text.trim())) end += 1;
  if (end === i || !INDENTED.test(lines[i].text)) return 0;
  const own = lines.slice(i, end).map((line) => line.slice(INDENTED.exec(line.text)?.[0].length ?? 0));
  while (!own.at(-1).text.trim()) own.pop();
  parent.append(code(own));
  return end;
}

function code(lines) {
  const block = make("pre");
  Marked.join(lines, "\n").appendTo(block.appendChild(make("code")));
  return block;
}

function heading(lines, i, parent, context) {
  const found = HEADING.exec(lines[i].text);
  if (!found) return 0;
  const words = lines[i].slice(found[0].length).trim();
  const end = / #+$/.exec(words.text)?.index ?? words.length;
  parent.append(headingOf(words.slice(0, end), context));
  return i + 1;
}

function headingOf(words, context) {
  const element = make("h4");
  spans(words, element, context);
  return element;
}

function rule(lines, i, parent) {
  if (!RULE.test(lines[i].text)) return 0;
  parent.append(make("hr"));
  return i + 1;
}

function quotation(lines, i, parent, context) {
  let end = i;
  while (end < lines.length && QUOTE.test(lines[end].text)) end += 1;
  if (end === i) return 0;
  const own = lines.slice(i, end).map((line) => line.slice(QUOTE.exec(line.text)[0].length));
  blocks(own, parent.appendChild(make("blockquote")), { ...context, depth: context.depth + 1 });
  return end;
}

function list(lines, i, parent, context) {
  const first = ITEM.exec(lines[i].text);
  if (!first) return 0;
  const kind = first[2].replace(/\d+/, "1");
  const element = parent.appendChild(make(kind.length > 1 ? "ol" : "ul"));
  if (kind.length > 1) element.start = Number.parseInt(first[2], 10);
  let loose = false;
  let end = i;
  while (end < lines.length) {
    const marker = ITEM.exec(lines[end].text);
    if (!marker || marker[2].replace(/\d+/, "1") !== kind || RULE.test(lines[end].text)) break;
    const own = [lines[end].slice(marker[0].length)];
    const width = Math.max(2, marker[0].length);
    for (end += 1; end < lines.length && belongs(lines, end, width, own); end += 1) {
      own.push(lines[end].slice(Math.min(width, /^ */.exec(lines[end].text)[0].length)));
    }
    while (own.length > 1 && !own.at(-1).text.trim()) {
      own.pop();
      loose ||= ITEM.test(lines[end]?.text ?? "");
    }
    blocks(own, element.appendChild(make("li")), { ...context, depth: context.depth + 1 });
  }
  for (const paragraph of loose ? [] : element.querySelectorAll(":scope > li > p")) {
    paragraph.replaceWith(...paragraph.childNodes);
  }
  return end;
}

// Whether a line goes on with an item whose text is indented by `width`.
function belongs(lines, at, width, own) {
  const { text } = lines[at];
  if (!text.trim()) return true;
  if (text.startsWith(" ".repeat(width))) return true;
  return Boolean(own.at(-1).text.trim()) && !begins(text);
}

function table(lines, i, parent, context) {
  const isRow = (line) => line !== undefined && line.text.includes("|");
  if (!isRow(lines[i]) || !isRow(lines[i + 1]) || !COLUMNS.test(lines[i + 1].text)) return 0;
  let end = i + 2;
  while (end < lines.length && isRow(lines[end])) end += 1;
  const element = parent.appendChild(make("table"));
  const row = (line, section, kind) => {
    const cells = section.appendChild(make("tr"));
    for (const cell of cellsOf(line.trim())) spans(cell, cells.appendChild(make(kind)), context);
  };
  row(lines[i], element.appendChild(make("thead")), "th");
  const body = element.appendChild(make("tbody"));
  for (const line of lines.slice(i + 2, end)) row(line, body, "td");
  return end;
}

function cellsOf(line) {
  const from = line.text.startsWith("|") ? 1 : 0;
  const cells = [];
  let start = from;
  for (let at = from; at <= line.length; at += 1) {
    if (at === line.length ? start < at : line.text[at] === "|" && line.text[at - 1] !== "\\") {
      cells.push(line.slice(start, at).trim());
      start = at + 1;
    }
  }
  return cells;
}

function paragraph(lines, i, parent, context) {
  let end = i + 1;
  while (end < lines.length && lines[end].text.trim() && !UNDERLINE.test(lines[end].text) && !begins(lines[end].text)) {
    end += 1;
  }
  const own = lines.slice(i, end);
  if (end < lines.length && UNDERLINE.test(lines[end].text)) {
    parent.append(headingOf(Marked.join(own, " ").trim(), context));
    return end + 1;
  }
  parent.append(paragraphOf(own, context));
  return end;
}

function paragraphOf(lines, context) {
  const element = make("p");
  spans(Marked.join(lines.map((line) => line.slice(/^\s*/.exec(line.text)[0].length)), "\n"), element, context);
  return element;
}

const begins = (line) => [FENCE, HEADING, RULE, QUOTE, ITEM].some((sign) => sign.test(line));
const BLOCKS = [fenced, indented, heading, rule, quotation, list, table, paragraph];
