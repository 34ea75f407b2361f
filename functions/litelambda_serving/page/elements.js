"use strict";
// Elements. All text goes through `append`, which makes text nodes: names, labels and errors are data from others.

/** Make an element: properties by name, `aria-…`, `for`, `role` and the like as attributes, then its children. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The element of the document with an id. */
function find(id) {
  return document.getElementById(id);
}

let numberOfIds = 0;

/** An id that no other element has. */
function newId() {
  numberOfIds += 1;
  return `e${numberOfIds}`;
}

/** A control with its name above it, and a hint. */
function labelled(name, control, hint = "") {
  const children = hint ? [name, " ", make("span", { className: "hint" }, hint)] : [name];
  return make("label", {}, ...children, control);
}

function option(value, text = value) {
  return make("option", { value }, text);
}

/** A list of terms and what they are; those without a value are left out. */
function definitions(pairs) {
  const known = pairs.filter(([, value]) => value || value === 0);
  return make("dl", {}, ...known.flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)]));
}

/** A number with four digits, as people read it. */
function shown(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return size >= 1000 ? value.toFixed(1) : String(Number(value.toFixed(size >= 1 ? 3 : 4)));
}

/** What is wrong with what a person entered; its text is for them. */
class Problem extends Error {}
