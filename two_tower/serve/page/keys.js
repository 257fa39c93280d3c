// The keyboard: from passage to passage, and what to do with one.

import { $ } from "./dom.js";

const MOVES = { ArrowDown: [1, 0], j: [1, 0], ArrowUp: [-1, 0], k: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const PLACE = "shortcuts"; // "off" where letters and signs are no keys: who dictates would press them

export function listen() {
  $("shortcuts").checked = stored() !== "off";
  $("shortcuts").addEventListener("change", () => localStorage.setItem(PLACE, $("shortcuts").checked ? "on" : "off"));
  document.addEventListener("keydown", key);
}

function stored() {
  try {
    return localStorage.getItem(PLACE);
  } catch {
    return null;
  }
}

function key(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("input:not([type=checkbox]), textarea, select");
  if (typing && !(event.target === $("query") && event.key === "ArrowDown")) return;
  if (event.key.length === 1 && !$("shortcuts").checked) return;
  if (act(event)) event.preventDefault();
}

function act({ key, target }) {
  if (key === "/" || key === "Escape") {
    $("query").focus();
    $("query").select();
  } else if (key === "?") {
    $("help").showModal();
  } else if (key in MOVES) {
    move(...MOVES[key]);
  } else {
    const item = target.closest("#columns li[data-id]");
    return item !== null && actOn(item, key, target);
  }
  return true;
}

function actOn(item, key, target) {
  if (key === "Enter" && target === item) item.dispatchEvent(new Event("toggle-text"));
  else if (key === "o") item.querySelector(":scope > h3 a")?.click();
  else if (key === "r" || key === "n") item.querySelector(`:scope > .actions [data-grade="${key === "r" ? 1 : 0}"]`).click();
  else return false;
  return true;
}

function move(down, right) {
  const columns = [...document.querySelectorAll("#columns section")];
  const lists = columns.map((column) => [...column.querySelectorAll("li[data-id]")].filter((item) => item.checkVisibility()));
  const active = document.activeElement.closest("li[data-id]"); // or a link in it
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
