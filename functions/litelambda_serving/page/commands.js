// The request as a command for a shell and as Python, to copy. Both read a picture from its file.

const LONGEST_WORD = 1e5; // of a command line, on Linux 128 KiB

const JSON_FORM = { null: "null", true: "true", false: "false", text: (text) => text };
// A here-document whose commands run: those of the files, and nothing that stands in the values.
const SHELL = {
  ...JSON_FORM,
  text: (text) => text.replace(/[\\$`]/g, "\\$&"),
  file: (name) => `{"b64": "$(base64 < ${quoted(name)} | tr -d '\\n')"}`,
};
// A string of JSON is one of Python.
const PYTHON = {
  null: "None", true: "True", false: "False", text: (text) => text,
  file: (name) => `{"b64": encoded(${JSON.stringify(name)})}`,
};

/** Every picture's file in a request, in the order of the JSON. */
function filesIn(value) {
  if (value instanceof PictureFile) return [value];
  return value && typeof value === "object" ? Object.values(value).flatMap(filesIn) : [];
}

/** curl, for a POSIX shell: the body is quoted, or, with files, comes from a here-document that encodes them. */
function asCurl(url, body) {
  const headers = [`-H 'Content-Type: application/json'`];
  if (credentials.token) headers.push('-H "Authorization: Bearer $TOKEN"');
  if (credentials.key) headers.push('-H "x-api-key: $API_KEY"');
  const head = [`curl ${quoted(url)}`, ...headers, "--data-binary "].join(" \\\n  ");
  if (filesIn(body).length) return `${head}@- <<JSON\n${written(body, SHELL)}\nJSON`;
  const plain = written(body, JSON_FORM);
  return plain.length < LONGEST_WORD ? head + quoted(plain) : `${head}@- <<'JSON'\n${plain}\nJSON`;
}

/** A text as one word of a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Python, with its standard library alone. */
function asPython(url, body) {
  const hasFiles = filesIn(body).length > 0;
  const headers = ['"Content-Type": "application/json"'];
  if (credentials.token) headers.push(`"Authorization": f"Bearer {os.environ['TOKEN']}"`);
  if (credentials.key) headers.push('"x-api-key": os.environ["API_KEY"]');
  const imports = [hasFiles && "base64", "json", headers.length > 1 && "os", "urllib.request"].filter(Boolean);
  const encoded = ["", "def encoded(path):", '    with open(path, "rb") as file:', "        return base64.b64encode(file.read()).decode()", ""];
  return [
    ...imports.map((name) => `import ${name}`),
    ...(hasFiles ? encoded : [""]),
    `url = ${JSON.stringify(url)}`,
    `body = ${written(body, PYTHON)}`,
    `headers = {${headers.join(", ")}}`,
    "request = urllib.request.Request(url, json.dumps(body).encode(), headers)",
    "with urllib.request.urlopen(request) as answer:",
    "    print(answer.read().decode())",
  ].join("\n");
}

/** A JSON value in a language's form, with spaces where lines may break. */
function written(value, form) {
  if (value === null || typeof value === "boolean") return form[value];
  if (value instanceof PictureFile) return form.file(value.name);
  if (Array.isArray(value)) return `[${value.map((each) => written(each, form)).join(", ")}]`;
  if (typeof value === "string") return form.text(JSON.stringify(value));
  if (typeof value === "number") return String(value);
  return `{${Object.entries(value).map(([name, each]) => `${form.text(JSON.stringify(name))}: ${written(each, form)}`).join(", ")}}`;
}

/** A text with its title and a button that copies it. */
function copyable(title, text) {
  const code = make("pre", { tabIndex: 0, "aria-label": title }, text);
  const button = make("button", { type: "button", className: "plain small", "aria-label": `Copy ${title}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // Without https there is no clipboard: the text is selected, for the keys that copy.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => {
      button.textContent = "Copy";
    }, 2000);
  });
  return make("div", {}, make("div", { className: "titled" }, make("h3", {}, title), button), code);
}
