// The service: where it is, one request, and what it says of its models. Knows no element.

// What comes before the API's paths: a stage, or a custom domain's mapping. The page is at its root, with or without "/".
const BASE = location.origin + location.pathname.replace(/\/?$/, "/");

const credentials = { token: "", key: "" };

/** An answer of the service that is not a success, or none. */
class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Send a request. `body`, where there is one, is sent as JSON.
 * Returns what came as JSON, the version that answered, and milliseconds: there and back, and in the function.
 */
async function call(path, body) {
  const headers = { Accept: "application/json" };
  if (credentials.token) headers.Authorization = `Bearer ${credentials.token}`;
  if (credentials.key) headers["x-api-key"] = credentials.key;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const init = body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  const started = performance.now();
  let response, text;
  try {
    response = await fetch(BASE + path, init);
    text = await response.text();
  } catch {
    throw new ServiceError(0, "No answer. Check that the service runs and that you are online, then try again.");
  }
  const roundTrip = performance.now() - started;
  if (!response.ok) throw new ServiceError(response.status, reasonOf(response, text));
  const server = /dur=([\d.]+)/.exec(response.headers.get("Server-Timing") ?? "");
  return {
    value: JSON.parse(text),
    version: response.headers.get("X-Model-Version") ?? "",
    roundTrip,
    inFunction: server ? Number(server[1]) : undefined,
  };
}

/** The service's own words for an error, or those of the gateway in front of it. */
function reasonOf(response, text) {
  try {
    const fields = JSON.parse(text);
    const reason = fields.error ?? fields.message;
    if (reason) return String(reason);
  } catch {
    // Not JSON: a proxy's page, which has nothing for people.
  }
  return response.status === 413 ? "The request is too large: at most 6 MB." : response.statusText || "The request failed.";
}

/** Models by name: their versions, newest first, and aliases. */
async function listModels() {
  const models = new Map();
  try {
    const { value } = await call("v2/repository/index", {});
    for (const { name, version, aliases } of value) {
      const model = models.get(name) ?? { name, versions: [], aliases: {} };
      if (version) model.versions.unshift(version);
      for (const alias of aliases ?? []) model.aliases[alias] = version;
      models.set(name, model);
    }
  } catch (error) {
    if (error.status === 401 || error.status === 0) throw error;
    // Not everybody may list the store: those in memory are the rest.
    const { value } = await call("v1/models");
    for (const name of value.models) models.set(name, { name, versions: [], aliases: {} });
  }
  return models;
}

/** What a model takes and answers. `version` is "" for what the service answers with, a number, or an alias. */
async function describe(model, version) {
  const suffix = version ? `/versions/${encodeURIComponent(version)}` : "";
  return (await call(`v2/models/${encodeURIComponent(model)}${suffix}`)).value;
}

/** What V1 has of a model's version or alias, by its path's end: ":predict", "/metadata". */
function pathOf(model, version, end) {
  const kind = /^\d+$/.test(version) ? "versions" : "labels";
  const suffix = version ? `/${kind}/${encodeURIComponent(version)}` : "";
  return `v1/models/${encodeURIComponent(model)}${suffix}${end}`;
}

const DEFAULT_SIGNATURE = "serving_default";
const DATATYPES = { DT_FLOAT: "FP32", DT_HALF: "FP16", DT_DOUBLE: "FP64", DT_STRING: "BYTES" };

/** Inputs and outputs of a model's signatures, by name and in V2's words, where there are more than the default one. */
async function otherSignatures(model, version) {
  const { metadata } = (await call(pathOf(model, version, "/metadata"))).value;
  const tensors = (infos) => Object.entries(infos).map(([name, { dtype, tensor_shape: { dim } }]) => ({
    name, datatype: DATATYPES[dtype] ?? dtype.slice(3), shape: dim.map(({ size }) => Number(size)),
  }));
  return Object.entries(metadata.signature_def.signature_def)
    .filter(([name]) => name !== DEFAULT_SIGNATURE)
    .map(([name, { inputs, outputs }]) => ({ name, inputs: tensors(inputs), outputs: tensors(outputs) }));
}
