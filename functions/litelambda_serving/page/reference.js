// The API's reference: `openapi.json`, as it is now, for people.

async function showReference(place) {
  const link = make("a", { href: `${BASE}openapi.json` }, "openapi.json");
  place.replaceChildren(make("p", { role: "status" }, "Reading openapi.json …"));
  let api;
  try {
    api = (await call("openapi.json")).value;
  } catch (error) {
    place.replaceChildren(problem(error));
    return;
  }
  const { title, version, description } = api.info;
  const groups = new Map();
  for (const [path, operations] of Object.entries(api.paths)) {
    const name = path === "/v2/models/stats" ? null : /^\/v[12]\/models\/([^/:]+)/.exec(path)?.[1];
    const entries = Object.entries(operations).map(([method, operation]) => showOperation(method, path, operation, api));
    const group = name ?? "Service";
    groups.set(group, [...(groups.get(group) ?? []), ...entries]);
  }
  const sections = [...groups].map(([name, entries]) => make("section", {}, make("h2", {}, name), ...entries));
  const about = make("div", {}, make("h2", {}, `${title} ${version}`), make("p", {}, description, " The machine's form: ", link, "."));
  place.replaceChildren(about, ...sections);
}

function showOperation(method, path, operation, api) {
  const body = make("div");
  const details = make("details", {}, make(
    "summary", {}, make("span", { className: "method" }, method.toUpperCase()), " ", make("code", {}, path), " ",
    make("span", { className: "quiet" }, operation.summary ?? ""),
  ), body);
  details.addEventListener("toggle", () => {
    if (details.open && !body.hasChildNodes()) body.append(...operationParts(operation, api));
  });
  return details;
}

function operationParts(operation, api) {
  const parts = [];
  if (operation.parameters?.length) {
    const rows = operation.parameters.map(({ name, in: place, schema }) => [name, `${place}: ${schemaText(schema, api)}`]);
    parts.push(make("h3", {}, "Parameters"), definitions(rows));
  }
  for (const [kind, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    parts.push(make("h3", {}, `Request: ${kind}`));
    if (schema) parts.push(make("pre", { tabIndex: 0 }, schemaText(schema, api)));
  }
  const responses = Object.entries(operation.responses ?? {}).map(([status, response]) => [
    status, response.$ref ? api.components.responses[response.$ref.split("/").pop()] : response,
  ]);
  for (const [status, { description, content }] of responses) {
    const schema = content?.["application/json"]?.schema;
    if (Number(status) >= 300) continue;
    parts.push(make("h3", {}, `Answer ${status}: ${description}`));
    if (schema) parts.push(make("pre", { tabIndex: 0 }, schemaText(schema, api)));
  }
  const errors = responses.filter(([status]) => Number(status) >= 300);
  if (errors.length) parts.push(make("h3", {}, "Errors"), definitions(errors.map(([status, { description }]) => [status, description])));
  return parts;
}

/** A JSON Schema as a sketch of the values that it allows; "?" marks what may be left out. */
function schemaText(schema, api, indent = "") {
  if (schema === undefined || schema === true) return "anything";
  if (schema === false) return "nothing";
  if (schema.$ref) return schemaText(api.components.schemas[schema.$ref.split("/").pop()], api, indent);
  const forms = schema.oneOf ?? schema.anyOf;
  if (forms) return forms.map((form) => schemaText(form, api, indent)).join(`\n${indent}or `);
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  const type = [schema.type ?? (schema.properties ? "object" : "anything")].flat().join(" or ");
  if (type.startsWith("array")) {
    const { minItems: least, maxItems: most } = schema;
    const count = least === most && least !== undefined ? `${least} × ` : "";
    const items = schema.prefixItems?.map((item) => schemaText(item, api, indent)).join(", ");
    return `[${items ?? count + schemaText(schema.items, api, indent)}]`;
  }
  if (!schema.properties) return type + limits(schema);
  const inner = `${indent}  `;
  const lines = Object.entries(schema.properties)
    .filter(([, each]) => each !== false)
    .map(([name, each]) => `${inner}${JSON.stringify(name)}${schema.required?.includes(name) ? "" : "?"}: ${schemaText(each, api, inner)}`);
  return `{\n${lines.join(",\n")}\n${indent}}`;
}

function limits({ minimum, maximum }) {
  if (minimum === undefined && maximum === undefined) return "";
  return ` (${minimum ?? ""} to ${maximum ?? ""})`;
}
