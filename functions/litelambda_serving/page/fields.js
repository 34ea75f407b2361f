// The form: a control for each field of a request, made from what the model says it takes.

const MOST_NUMBERS = 64;
const MOST_CATEGORIES = 2000;
const WHOLE = /^U?INT/;

/** Each field's control: its element, and `read`, which gives the value or throws a `Problem`. */
function makeControls(metadata) {
  if (metadata.raw_inputs) return metadata.raw_inputs.map((field) => rawControl(field));
  return metadata.inputs.map((input) => tensorControl(input.name, input.shape, input.datatype, "1"));
}

function rawControl({ name, type, shape, categories, missing, fit }) {
  if (type === "number") return new NumberControl(name, missing);
  if (type === "category") return categories ? new CategoryControl(name, categories, missing) : new WordControl(name, missing);
  if (type === "text") return new TextControl(name);
  if (type === "image") return new PictureControl(name, [...shape.slice(1), 1].slice(0, 3), { asFile: true, fit });
  return tensorControl(name, shape, "FP32", "255");
}

/** A control for a tensor: of one row where it is batched, else of all of it. */
function tensorControl(name, shape, datatype, range) {
  const row = shape[0] === -1 ? shape.slice(1) : shape;
  const count = row.reduce((product, size) => product * size, 1);
  const picture = datatype === "BYTES" || datatype === "BOOL" ? null : pictureShape(row);
  const scale = datatype === "UINT8" || range === "255" ? "255" : range;
  if (picture) return new PixelsControl(name, row, picture, scale);
  if (row.length === 0) return scalarControl(name, datatype);
  if (datatype !== "BYTES" && count <= MOST_NUMBERS && count > 0) return new GridControl(name, row, datatype);
  return new JsonControl(name, row, datatype);
}

/** Height, width and channels, of a row that has a picture's shape; of 784 numbers, those of a digit. */
function pictureShape(row) {
  if (row.length === 1 && row[0] === 784) return [28, 28, 1];
  const [height, width, channels = 1] = row;
  const is = (row.length === 2 || row.length === 3) && height >= 8 && width >= 8 && (channels === 1 || channels === 3);
  return is ? [height, width, channels] : null;
}

function scalarControl(name, datatype) {
  if (datatype === "BYTES") return new TextControl(name);
  return datatype === "BOOL" ? new CategoryControl(name, [false, true]) : new NumberControl(name, undefined, datatype);
}

/** What a number's control has, as a number. */
function numberOf(input, name) {
  const value = input.value.trim() === "" ? NaN : Number(input.value);
  input.toggleAttribute("aria-invalid", Number.isNaN(value));
  if (Number.isNaN(value)) {
    input.focus();
    throw new Problem(`${name}: enter a number.`);
  }
  return value;
}

function numberInput(datatype, value = "") {
  const step = WHOLE.test(datatype) ? "1" : "any";
  return make("input", { type: "number", step, value, autocomplete: "off" });
}

/** A number; empty is null where the model knows what a missing one counts as. */
class NumberControl {
  constructor(name, missing, datatype = "FP32") {
    this.name = name;
    this.optional = missing !== undefined;
    this.input = numberInput(datatype, missing ?? "");
    this.input.placeholder = this.optional ? shown(missing) : "";
    this.element = labelled(name, this.input);
    this.small = true;
  }

  read() {
    if (this.optional && this.input.value === "" && this.input.validity.valid) return null;
    return numberOf(this.input, this.name);
  }
}

/** One of some values, which keep their type. */
class CategoryControl {
  constructor(name, categories, missing) {
    this.values = categories;
    const shownOnes = categories.slice(0, MOST_CATEGORIES);
    this.select = make("select", {}, ...shownOnes.map((value, index) => option(index, String(value))));
    if (missing !== undefined) {
      this.select.append(option("", missing === "" ? "(missing)" : `(missing: as ${missing})`));
      this.select.value = Math.max(0, categories.indexOf(missing));
    }
    this.optional = missing !== undefined;
    this.element = labelled(name, this.select);
    this.small = true;
  }

  read() {
    return this.select.value === "" ? null : this.values[Number(this.select.value)];
  }
}

/** A category from a vocabulary that is not in the metadata. */
class WordControl {
  constructor(name, missing) {
    this.input = make("input", { type: "text", value: missing ?? "", placeholder: missing ?? "" });
    this.optional = missing !== undefined;
    this.element = labelled(name, this.input);
    this.small = true;
  }

  read() {
    return this.optional && this.input.value === "" ? null : this.input.value;
  }
}

class TextControl {
  constructor(name) {
    this.name = name;
    this.input = make("textarea", { rows: 5, spellcheck: false });
    this.element = labelled(name, this.input);
  }

  read() {
    if (this.input.value === "") {
      this.input.focus();
      throw new Problem(`${this.name}: enter a text.`);
    }
    return this.input.value;
  }
}

/** A few numbers, each with a control of its own. */
class GridControl {
  constructor(name, row, datatype) {
    this.row = row;
    const places = indices(row);
    this.names = places.map((place) => `${name}[${place.join(", ")}]`);
    const isBool = datatype === "BOOL";
    this.inputs = places.map(() => (isBool ? make("select", {}, option("false"), option("true")) : numberInput(datatype, "0")));
    this.isBool = isBool;
    const labels = this.inputs.map((input, index) => labelled(`[${places[index].join(", ")}]`, input));
    this.element = make("fieldset", {}, make("legend", {}, name), make("div", { className: "grid" }, ...labels));
  }

  read() {
    const values = this.inputs.map((input, index) => (this.isBool ? input.value === "true" : numberOf(input, this.names[index])));
    return nested(values, this.row);
  }
}

/** Many numbers, or strings, as JSON. */
class JsonControl {
  constructor(name, row, datatype) {
    this.name = name;
    this.input = make("textarea", { className: "code", rows: 6, spellcheck: false });
    const kind = datatype === "BYTES" ? "strings" : "numbers";
    const fill = make("button", { type: "button", className: "plain small" }, "Fill in an example");
    const empty = datatype === "BYTES" ? "" : datatype === "BOOL" ? false : 0;
    fill.addEventListener("click", () => {
      this.input.value = JSON.stringify(nested(indices(row).map(() => empty), row));
    });
    this.element = make("div", {}, labelled(name, this.input, `JSON: ${row.join(" × ")} ${kind}`), fill);
  }

  read() {
    try {
      return JSON.parse(this.input.value);
    } catch (error) {
      this.input.focus();
      throw new Problem(`${this.name}: this is not JSON (${error.message}).`);
    }
  }
}

/** A tensor that may be a picture, whose pixels become the numbers. */
class PixelsControl extends PictureControl {
  constructor(name, row, picture, range) {
    super(name, picture, { asFile: false, range });
    this.row = row;
  }

  read() {
    return nested(super.read().flat(2), this.row);
  }
}

/** All places of an array of this shape, row-major. */
function indices(shape) {
  return shape.reduce((found, size) => found.flatMap((place) => Array.from({ length: size }, (_, index) => [...place, index])), [[]]);
}

/** Flat values in a shape, row-major. */
function nested(values, shape) {
  if (shape.length === 0) return values[0];
  if (shape.length === 1) return values;
  const size = values.length / shape[0];
  return Array.from({ length: shape[0] }, (_, index) => nested(values.slice(index * size, (index + 1) * size), shape.slice(1)));
}

/** The controls laid out: small ones side by side. */
function layOut(controls) {
  const small = controls.filter((control) => control.small).map((control) => control.element);
  const large = controls.filter((control) => !control.small).map((control) => control.element);
  const hint = make("p", { className: "hint" }, "Leave a field empty where its value is missing: the model then takes the value in gray.");
  const hints = controls.some((control) => control.optional) ? [hint] : [];
  return small.length ? [make("div", { className: "grid" }, ...small), ...hints, ...large] : large;
}

/** The body of a request: one row where the model has rows, else its inputs as a whole. */
function requestBody(metadata, controls, names) {
  const values = controls.map((control) => control.read());
  const value = values.length === 1 ? values[0] : Object.fromEntries(names.map((name, index) => [name, values[index]]));
  return hasRows(metadata) ? { instances: [value] } : { inputs: value };
}

function hasRows(metadata) {
  return Boolean(metadata.raw_inputs) || [...metadata.inputs, ...metadata.outputs].every(({ shape }) => shape[0] === -1);
}
