// The page: which model is tried, and what happens with its form.

// `described` is the model's own metadata, `metadata` that of the signature that is tried.
const state = { models: new Map(), described: null, others: [], metadata: null, controls: [], names: [], asked: 0 };

/** An error for people. */
function problem(error) {
  const head = error instanceof ServiceError && error.status ? `${error.status}: ` : "";
  if (error.status === 401 || error.status === 403) find("access").hidden = false;
  return make("p", { className: "problem" }, head + error.message);
}

async function start() {
  find("status").textContent = "Reading the models …";
  try {
    state.models = await listModels();
  } catch (error) {
    find("status").replaceChildren(problem(error));
    return;
  }
  find("model").replaceChildren(...[...state.models.keys()].map((name) => option(name)));
  if (!state.models.size) {
    find("status").textContent = "There are no models yet: publish one, then load this page again.";
    return;
  }
  const wanted = decodeURIComponent(/^#model=(.+)/.exec(location.hash)?.[1] ?? "");
  if (state.models.has(wanted)) find("model").value = wanted;
  await chooseModel();
}

async function chooseModel() {
  const { versions, aliases } = state.models.get(find("model").value);
  const named = Object.entries(aliases).map(([alias, version]) => option(alias, `${alias} (${version})`));
  find("version").replaceChildren(option("", "default"), ...named, ...versions.map((version) => option(version)));
  await chooseVersion();
}

async function chooseVersion() {
  const [model, version] = [find("model").value, find("version").value];
  const asked = (state.asked += 1);
  for (const id of ["answer", "explanation"]) find(id).replaceChildren();
  find("commands").hidden = find("workplace").hidden = true;
  find("status").textContent = `Loading ${model} …`;
  try {
    const [described, others] = await Promise.all([describe(model, version), otherSignatures(model, version)]);
    if (asked !== state.asked) return; // another model was chosen meanwhile
    Object.assign(state, { described, others });
  } catch (error) {
    if (asked === state.asked) find("status").replaceChildren(problem(error));
    return;
  }
  find("signature-label").hidden = state.others.length === 0;
  find("signature").replaceChildren(option("", "default"), ...state.others.map(({ name }) => option(name)));
  find("status").textContent = "";
  chooseSignature();
}

/** Lay out the form of the chosen signature. Raw values and labels are for the default one. */
function chooseSignature() {
  const other = state.others.find(({ name }) => name === find("signature").value);
  const { raw_inputs: raw, ...described } = state.described;
  const metadata = other ? { ...described, inputs: other.inputs, outputs: other.outputs } : state.described;
  state.metadata = metadata;
  for (const control of state.controls) control.stopCamera?.();
  state.controls = makeControls(metadata);
  state.names = (metadata.raw_inputs ?? metadata.inputs).map(({ name }) => name);
  find("fields").replaceChildren(...layOut(state.controls));
  find("about").lastElementChild.replaceChildren(...showAbout(metadata));
  find("answer").replaceChildren(make("p", { className: "quiet" }, "Fill in the input, then predict."));
  find("explanation").replaceChildren();
  find("own").open = find("explain").hidden = false;
  find("own-text").value = "";
  find("commands").hidden = true;
  find("workplace").hidden = false;
}

/** The form's request. */
function formBody() {
  const signature = find("signature").value;
  const body = requestBody(state.metadata, state.controls, state.names);
  return signature ? { signature_name: signature, ...body } : body;
}

/** What is asked: the form's row, or the request that was written by hand. */
function currentBody() {
  if (!find("own").open) return formBody();
  let body;
  try {
    body = JSON.parse(find("own-text").value);
  } catch (error) {
    throw new Problem(`The request is not JSON: ${error.message}.`);
  }
  if (Array.isArray(body?.instances) === (body?.inputs !== undefined)) {
    throw new Problem("The request needs a list of rows, instances, or the columns, inputs.");
  }
  return body;
}

/** Begin a request by hand with the form's, where that is filled in. */
function startOwn() {
  if (!find("own").open || find("own-text").value) return;
  try {
    find("own-text").value = JSON.stringify(formBody(), null, 1);
  } catch {
    find("own-text").value = hasRows(state.metadata) ? '{"instances": []}' : '{"inputs": {}}';
  }
}

/** Send the form's request to a verb, and show what came; the buttons wait meanwhile. */
async function ask(verb, place, show) {
  const asked = state.asked;
  const buttons = [find("predict"), find("explain")];
  try {
    const body = currentBody();
    const path = pathOf(find("model").value, find("version").value, `:${verb}`);
    for (const button of buttons) button.disabled = true;
    showCommands(BASE + path, body);
    const answer = await call(path, body);
    if (asked === state.asked) place.replaceChildren(...show(answer, body));
  } catch (error) {
    if (!(error instanceof Problem || error instanceof ServiceError)) throw error;
    if (asked !== state.asked) return;
    place.replaceChildren(problem(error));
    if (verb === "explain" && (error.status === 501 || error.status === 404)) find("explain").hidden = true;
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

function showCommands(url, body) {
  find("commands").hidden = false;
  find("commands").lastElementChild.replaceChildren(copyable("curl", asCurl(url, body)), copyable("Python", asPython(url, body)));
}

async function predict(event) {
  event.preventDefault();
  find("explanation").replaceChildren();
  await ask("predict", find("answer"), (answer, body) => showAnswer(state.metadata, body, answer));
}

async function explain() {
  await ask("explain", find("explanation"), (answer, body) => {
    const { roundTrip, inFunction, ...untimed } = answer;
    find("answer").replaceChildren(...showAnswer(state.metadata, body, untimed));
    const form = find("own").open ? { names: [], controls: [] } : state;
    return [...showExplanation(answer.value.explanations[0], form), times({ roundTrip, inFunction })];
  });
}

/** Show the page that the address names. */
function go() {
  const isApi = location.hash === "#api";
  find("api").hidden = !isApi;
  find("try").hidden = isApi;
  for (const link of document.querySelectorAll("nav a")) {
    if ((link.hash === "#api") === isApi) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = isApi ? "API – litelambda" : "litelambda";
  if (isApi && !find("api").hasChildNodes()) showReference(find("api"));
}

find("model").addEventListener("change", () => {
  history.replaceState(null, "", `#model=${encodeURIComponent(find("model").value)}`);
  chooseModel();
});
find("version").addEventListener("change", chooseVersion);
find("signature").addEventListener("change", chooseSignature);
find("form").addEventListener("submit", predict);
find("explain").addEventListener("click", explain);
find("own").addEventListener("toggle", startOwn);
find("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  Object.assign(credentials, { token: find("token").value.trim(), key: find("api-key").value.trim() });
  find("access").hidden = true;
  find("api").replaceChildren();
  start();
  go();
});
addEventListener("hashchange", go);
go();
start();
