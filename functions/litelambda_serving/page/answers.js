// The answer: bars, a number or names for each output, and how long it took.

const MOST_BARS = 10;
const MOST_JSON = 20000;

/** What a prediction says, as elements. */
function showAnswer(metadata, body, answer) {
  const outputs = pairUp(outputsOf(metadata, body, answer.value));
  const parts = outputs.flatMap((output) => {
    const [part, hasCaption] = showOutput(output, metadata);
    return outputs.length > 1 && !hasCaption ? [make("h3", {}, output.name), part] : [part];
  });
  return [...parts, times(answer)];
}

/** Which version answered, and how fast, where that is known. */
function times({ version, roundTrip, inFunction }) {
  const milliseconds = (number) => number !== undefined && `${number < 10 ? number.toFixed(2) : number.toFixed(0)} ms`;
  return definitions([
    ["Version", version],
    ["In the function", milliseconds(inFunction)],
    ["There and back", milliseconds(roundTrip)],
  ]);
}

/** The values of the row, or of all, by output. */
function outputsOf(metadata, body, value) {
  const whole = "instances" in body ? value.predictions[0] : value.outputs;
  const names = metadata.outputs.map(({ name }) => name);
  if (names.length === 1 || typeof whole !== "object" || Array.isArray(whole) || whole === null) return [{ name: names[0], value: whole }];
  return Object.entries(whole).map(([name, each]) => ({ name, value: each }));
}

/** Names and numbers of two outputs that belong together, such as items and their scores. */
function pairUp(outputs) {
  const names = outputs.find(({ value }) => isListOf(value, "string"));
  const scores = names && outputs.find(({ value }) => isListOf(value, "number") && value.length === names.value.length);
  if (!scores) return outputs;
  const rest = outputs.filter((output) => output !== names && output !== scores);
  return [{ name: names.name, value: scores.value, labels: names.value, ordered: true }, ...rest];
}

function isListOf(value, type) {
  return Array.isArray(value) && value.length > 0 && value.every((each) => typeof each === type);
}

/** An output's value as an element, and whether the output's name stands in it. */
function showOutput({ name, value, labels, ordered }, metadata) {
  const single = Array.isArray(value) && value.length === 1 ? value[0] : value;
  if (typeof single !== "object" || single === null) return [make("p", { className: "figure" }, shown(single))];
  if (isListOf(value, "number")) {
    const known = metadata.parameters?.labels;
    const names = labels ?? (known?.length === value.length ? known : value.map((_, index) => String(index)));
    const rows = value.map((score, index) => ({ name: names[index], value: score }));
    const isRegression = metadata.parameters?.task === "regression" && !labels;
    if (!ordered && !isRegression) rows.sort((one, other) => other.value - one.value);
    return [bars(rows, name, { best: !isRegression }), true];
  }
  if (isListOf(value, "string")) return [make("ul", {}, ...value.map((each) => make("li", {}, each)))];
  const text = JSON.stringify(value);
  return [make("pre", { tabIndex: 0 }, text.length > MOST_JSON ? `${text.slice(0, MOST_JSON)} …` : text)];
}

/** A table with a bar in each row, the first ones until all are asked for. */
function bars(rows, caption, { best = false } = {}) {
  const body = make("tbody");
  const scale = scaleOf(rows.map((row) => row.value));
  const add = (some) => body.append(...some.map((row) => barRow(row, scale)));
  add(rows.slice(0, MOST_BARS));
  if (best) body.firstChild.className = "best";
  const table = make("table", { className: "bars" }, make("caption", { className: "quiet" }, caption), body);
  if (rows.length <= MOST_BARS) return table;
  const all = make("button", { type: "button", className: "plain small" }, `Show all ${rows.length}`);
  all.addEventListener("click", () => {
    add(rows.slice(MOST_BARS));
    all.remove();
  });
  return make("div", {}, table, all);
}

function barRow({ name, value }, { least, span, digits }) {
  const bar = make("i", { className: value < 0 ? "against" : "" });
  bar.style.left = `${((Math.min(value, 0) - least) / span) * 100}%`;
  bar.style.width = `${(Math.abs(value) / span) * 100}%`;
  const heading = make("th", { scope: "row" }, name);
  const drawn = make("td", { "aria-hidden": "true" }, make("div", { className: "bar" }, bar));
  return make("tr", {}, heading, drawn, make("td", {}, digits(value)));
}

/** Where a bar of 0 begins and how much all of the width is: probabilities fill it at 1. */
function scaleOf(values) {
  const finite = values.filter(Number.isFinite);
  const least = Math.min(0, ...finite);
  const most = Math.max(0, ...finite);
  const isShare = least === 0 && most <= 1 && most > 0.05;
  const isSmall = Math.max(-least, most) <= 1;
  const digits = (value) => (isSmall && Number.isFinite(value) ? value.toFixed(4) : shown(value));
  return { least, span: (isShare ? 1 : most - least) || 1, digits };
}

/** What the model is, takes and answers, and how good it is. */
function showAbout(metadata) {
  const { labels, task, metrics, created } = metadata.parameters ?? {};
  const left = make("div", {}, make("h3", {}, metadata.name), definitions([
    ["Task", (task ?? "").replace("_", " ")],
    ["Published", created?.slice(0, 10)],
    ["Versions in memory", metadata.versions.join(", ")],
    ["Format", metadata.platform],
  ]));
  if (metrics) left.append(...showMetrics(metrics));
  const right = make("div", {}, make("h3", {}, "Signature"), signature(metadata));
  if (labels) right.append(make("h3", {}, `${labels.length} labels`), make("p", {}, listed(labels, 60)));
  return [left, right];
}

/** Figures of the float model and of what is served, on the same rows. */
function showMetrics(metrics) {
  const { float = {}, quantized = {}, trivial = {} } = metrics;
  const names = Object.keys(quantized).filter((name) => typeof quantized[name] === "number");
  const parts = [make("h3", {}, "On the test rows")];
  if (names.length) {
    const columns = [["served", quantized], ["float", float], ["trivial", trivial]].filter(([, each]) => names.some((name) => name in each));
    const cell = (each, name) => make("td", { className: "number" }, name in each ? shown(each[name]) : "");
    const rows = names.map((name) => make("tr", {}, make("th", { scope: "row" }, name.replaceAll("_", " ")), ...columns.map(([, each]) => cell(each, name))));
    const heads = columns.map(([name]) => make("th", { scope: "col", className: "number" }, name));
    parts.push(make("table", {}, make("thead", {}, make("tr", {}, make("td"), ...heads)), make("tbody", {}, ...rows)));
  }
  const others = ["agreement", "max_abs_difference", "num_examples"].filter((name) => typeof metrics[name] === "number");
  if (others.length) parts.push(definitions(others.map((name) => [name.replaceAll("_", " "), shown(metrics[name])])));
  return parts.length > 1 ? parts : [];
}

function signature(metadata) {
  const row = (kind) => ({ name, datatype, type, shape }) => make(
    "tr", {}, make("th", { scope: "row" }, name), make("td", {}, kind), make("td", {}, type ?? datatype), make("td", {}, shapeText(shape)),
  );
  const inputs = (metadata.raw_inputs ?? metadata.inputs).map(row("input"));
  const heads = ["Name", "", "Type", "Shape"].map((name) => (name ? make("th", { scope: "col" }, name) : make("td")));
  const body = make("tbody", {}, ...inputs, ...metadata.outputs.map(row("output")));
  return make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body);
}

function shapeText(shape) {
  return shape.length ? shape.map((size) => (size === -1 ? "rows" : size)).join(" × ") : "one value";
}

function listed(words, most) {
  const more = words.length - most;
  return words.slice(0, most).join(", ") + (more > 0 ? `, and ${more} more` : "");
}
