// The spans of a Markdown paragraph: code, links, bold, italics.

import { link, make } from "./dom.js";

const DEPTH = 8; // of spans within spans; what is deeper is text
const SPECIAL = /[\\`*_~![<\n]|https?:\/\//g;

// What may begin at a special character, tried in this order. Lengths are limited, so that no text takes long.
const RULES = [
  [/\\([!-/:-@[-`{-~])/dy, (piece, found) => piece.slice(...found.indices[1]).appendTo(document.createDocumentFragment())],
  [/(?<!`)(`{1,8})(?!`)([^]{0,1000}?[^`])\1(?!`)/dy, codeOf],
  [/!?\[((?:[^[\]\\]|\\.|\[[^[\]]{0,300}\]){0,500})\]\(<?([^\s()<>]{0,1000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,500})?)>?(?:\s+["'(][^"')]{0,300}["')])?\)/dy, linkOf],
  [/<(https?:\/\/[^\s<>]{1,1000})>/dy, addressOf],
  [/(https?:\/\/[^\s<>"'`]{0,1000}[^\s<>"'`.,;:!?)\]*_])/dy, addressOf],
  [/(\*\*|__)(?=\S)([^]{0,1000}?\S)\1/dy, (...given) => within("strong", ...given)],
  [/(\*)(?=[^\s*])([^]{0,1000}?[^\s*])\*(?!\*)/dy, (...given) => within("em", ...given)],
  [/(_)(?=[^\s_])([^]{0,1000}?[^\s_])_(?![\p{L}\p{N}_])/duy, (...given) => within("em", ...given)],
  [/(~~)(?=\S)([^]{0,1000}?\S)~~/dy, (...given) => within("s", ...given)],
  [/(?<= {2}|\\)\n/dy, () => make("br")],
];
const WORD = /[\p{L}\p{N}_]/u;

export function spans(piece, parent, context, depth = 0) {
  const { text } = piece;
  let done = 0;
  SPECIAL.lastIndex = 0;
  for (let special = SPECIAL.exec(text); special && depth <= DEPTH; special = SPECIAL.exec(text)) {
    const at = special.index;
    let next = at + 1;
    for (const [rule, build] of text[at] === "_" && WORD.test(text[at - 1] ?? "") ? [] : RULES) {
      rule.lastIndex = at;
      const found = rule.exec(text);
      const made = found && build(piece, found, context, depth);
      if (made) {
        piece.slice(done, at).appendTo(parent);
        parent.append(made);
        next = done = at + found[0].length;
        break;
      }
    }
    SPECIAL.lastIndex = next; // which the spans within have moved
  }
  piece.slice(done).appendTo(parent);
}

function codeOf(piece, found) {
  const inner = piece.slice(...found.indices[2]);
  const padded = /^ .*\S.* $/s.test(inner.text);
  return (padded ? inner.slice(1, -1) : inner).appendTo(make("code"));
}

function linkOf(piece, found, context, depth) {
  const address = context.open(found[2]);
  const element = address ? link(address) : document.createDocumentFragment();
  spans(piece.slice(...found.indices[1]), element, context, depth + 1);
  return element;
}

function addressOf(piece, found) {
  return piece.slice(...found.indices[1]).appendTo(link(found[1]));
}

function within(tag, piece, found, context, depth) {
  const element = make(tag);
  spans(piece.slice(...found.indices[2]), element, context, depth + 1);
  return element;
}
