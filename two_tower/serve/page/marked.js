import { make } from "./dom.js";

// A text of which some words are marked: `at[i]` is the number of the mark that unit i of the string is in, 0 for none.
export class Marked {
  constructor(text, at = new Int32Array(text.length)) {
    this.text = text;
    this.at = at;
  }

  // Marks count Unicode code points, JavaScript's strings count UTF-16 units.
  static of(text, marks) {
    const at = new Int32Array(text.length);
    let unit = 0;
    let point = 0;
    const unitOf = (target) => {
      for (; point < target && unit < text.length; point += 1) unit += text.codePointAt(unit) > 0xffff ? 2 : 1;
      return unit;
    };
    marks.forEach(([first, last], i) => at.fill(i + 1, unitOf(first), unitOf(last)));
    return new Marked(text, at);
  }

  static join(pieces, separator) {
    const text = pieces.map((piece) => piece.text).join(separator);
    const at = new Int32Array(text.length);
    let start = 0;
    for (const piece of pieces) {
      at.set(piece.at, start);
      start += piece.length + separator.length;
    }
    return new Marked(text, at);
  }

  get length() {
    return this.text.length;
  }

  slice(start, end = this.length) {
    return new Marked(this.text.slice(start, end), this.at.subarray(start, end));
  }

  trim() {
    const start = this.length - this.text.trimStart().length;
    return this.slice(start, Math.max(start, this.text.trimEnd().length));
  }

  lines() {
    let start = 0;
    return this.text.split("\n").map((line) => {
      const piece = this.slice(start, start + line.length - (line.endsWith("\r") ? 1 : 0));
      start += line.length + 1;
      return piece;
    });
  }

  // The marks as [start, end], in order.
  spans() {
    const found = [];
    for (let i = 0, end; i < this.length; i = end) {
      end = i + 1;
      while (end < this.length && this.at[end] === this.at[i]) end += 1;
      if (this.at[i]) found.push([i, end]);
    }
    return found;
  }

  appendTo(element) {
    let end = 0;
    for (const [first, last] of this.spans()) {
      element.append(this.text.slice(end, first), make("mark", "", this.text.slice(first, last)));
      end = last;
    }
    element.append(this.text.slice(end));
    return element;
  }
}
