// An explanation: over the picture, in the words, or by column. Blue speaks for the answer, orange against it.

/** What `:explain` says of the row, as elements; `controls` have the fields that it is about. */
function showExplanation(explanation, { names, controls }) {
  const parts = [make("h3", {}, headline(explanation))];
  for (const [name, values] of Object.entries(explanation.attributions)) {
    parts.push(...attributionParts(name, values, controls[names.indexOf(name)]));
  }
  const columns = Object.entries(explanation.attributions).filter(([, values]) => typeof values === "number");
  if (columns.length) parts.push(strongest(columns.map(([name, value]) => ({ name, value })), "Fields"));
  const { method, baseline, output, baseline_output: before, completeness_error: error, runs } = explanation;
  parts.push(definitions([
    ["Method", method],
    ["Compared with", typeof baseline === "string" ? baseline : ""],
    ["Output", isNumber(output) && isNumber(before) ? `${shown(output)}, from ${shown(before)}` : ""],
    ["Completeness error", isNumber(error) ? shown(error) : ""],
    ["Runs of the model", runs],
  ]));
  return parts;
}

function isNumber(value) {
  return typeof value === "number";
}

function headline({ label, target }) {
  const about = label ?? target;
  return about === undefined || about === null ? "Why" : `Why ${about}`;
}

function attributionParts(name, values, control) {
  if (isNumber(values)) return [];
  if (control instanceof PictureControl) return [overlay(control, gridOf(values, control)), keys()];
  const words = wordsOf(values);
  if (words && control instanceof TextControl) return [paragraph(words, control.read()), keys(), strongest(words, "Words")];
  const flat = [values].flat(Infinity);
  return [strongest(words ?? flat.map((value, index) => ({ name: flat.length > 1 ? `${name}[${index}]` : name, value })), name)];
}

/** Words with their places and attributions, in the order of the text; null where the values are not of words. */
function wordsOf(values) {
  if (!Array.isArray(values) || typeof values[0]?.token !== "string") return null;
  return values.map(({ token, start, end, attribution }) => ({ name: token, value: attribution, start, end }));
}

/** The rows with the largest attributions, those first. */
function strongest(rows, caption) {
  return bars([...rows].sort((one, other) => Math.abs(other.value) - Math.abs(one.value)), caption);
}

function keys() {
  return make("p", { className: "quiet" }, make("span", { className: "key" }, "for this answer"), make("span", { className: "key against" }, "against it"));
}

function largest(values) {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
}

/** The text with what is for and against the answer marked; places are counted in characters, as Python does. */
function paragraph(words, text) {
  const characters = Array.from(text);
  const most = largest(words.map((word) => word.value));
  const place = make("p", { className: "words" });
  let done = 0;
  for (const { value, start, end } of words) {
    if (start < done || end <= start) continue; // a token that the tokenizer added
    place.append(characters.slice(done, start).join(""), marked(characters.slice(start, end).join(""), value, most));
    done = end;
  }
  place.append(characters.slice(done).join(""));
  return place;
}

function marked(text, value, most) {
  const share = Math.abs(value) / most;
  const span = make("span", { title: shown(value) }, text);
  if (share > 0.05) {
    const kind = value > 0 ? "for" : "against";
    span.className = kind;
    span.style.background = `color-mix(in srgb, var(--${kind}) ${Math.round(share * 40)}%, transparent)`;
  }
  return span;
}

/** Rows of numbers over a picture: its pixels or larger cells, the channels added up. */
function gridOf(values, { width, height }) {
  const sum = (value) => [value].flat(Infinity).reduce((total, each) => total + each, 0);
  if (Array.isArray(values[0])) return values.map((row) => row.map(sum));
  return Array.from({ length: height }, (_, y) => values.slice(y * width, (y + 1) * width));
}

/** The picture in gray with its attributions over it. */
function overlay({ width, height, view }, grid) {
  const canvas = make("canvas", { width, height, role: "img", "aria-label": describePlaces(grid) });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(view, 0, 0);
  toGray(context, width, height);
  const image = context.getImageData(0, 0, width, height);
  const most = largest(grid.flat());
  for (let at = 0; at < width * height; at += 1) {
    const row = grid[Math.floor((Math.floor(at / width) * grid.length) / height)];
    const value = row[Math.floor(((at % width) * row.length) / width)];
    const share = Math.abs(value) / most;
    const color = value > 0 ? [110, 130, 255] : [255, 150, 60];
    color.forEach((part, channel) => {
      const place = 4 * at + channel;
      image.data[place] = image.data[place] * 0.7 * (1 - share) + part * share;
    });
  }
  context.putImageData(image, 0, 0);
  return make("figure", {}, canvas);
}

/** In words, which part of the picture speaks most for the answer. */
function describePlaces(grid) {
  const names = [["top left", "top", "top right"], ["left", "middle", "right"], ["bottom left", "bottom", "bottom right"]];
  const totals = new Map();
  grid.forEach((row, y) => row.forEach((value, x) => {
    const name = names[Math.floor((3 * y) / grid.length)][Math.floor((3 * x) / row.length)];
    totals.set(name, (totals.get(name) ?? 0) + value);
  }));
  const [strongestOne] = [...totals].sort(([, one], [, other]) => other - one)[0];
  return `Attributions over the picture: strongest for the answer at the ${strongestOne}`;
}
