"""What people do on the page, in Chromium: run by `tests/contract/clients/run_checks.py` in the page's environment.

What the page shows is compared with what the service answers to this script's own requests, or with arithmetic.
"""

import atexit
import base64
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

HOSTILE = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
ASKED = []  # the address of each request of the page
SAID = []  # what the browser's console said: refusals of the policy too
TIMES = "\N{MULTIPLICATION SIGN}"
THEMES = ("light", "dark")
WIDTHS = (1280, 390)


@cache
def browser():
    """The one browser of all checks, with a camera that shows a test picture."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    arguments = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    if os.geteuid() == 0:  # Chromium's sandbox is not for root
        arguments.append("--no-sandbox")
    playwright = sync_playwright().start()
    started = playwright.chromium.launch(executable_path=found, args=arguments)
    atexit.register(lambda: (started.close(), playwright.stop()))
    return started


@contextmanager
def opened(address, model="", *, path="/", routes=()):
    """The page, with the form of a model; `routes` are answers in place of the service's."""
    context = browser().new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(15_000)
    page = context.new_page()
    page.on("request", lambda request: ASKED.append(request.url))
    page.on("console", hear)
    page.on("pageerror", lambda error: SAID.append(f"error: {error}"))
    for pattern, status, body in routes:
        page.route(pattern, partial(answer_with, status, body))
    page.goto(f"http://{address}{path}" + (f"#model={model}" if model else ""))
    expect(page.locator("#status")).not_to_have_text(re.compile("Reading|Loading"))
    try:
        yield page
    finally:
        context.close()


def hear(message):
    """Keep what the console says, but for failed requests, which some checks ask for."""
    if not message.text.startswith("Failed to load resource"):
        SAID.append(f"{message.type}: {message.text}")


def answer_with(status, body, route):
    """Answer a request of the page in place of the service."""
    route.fulfill(status=status, json=body)


def ask(address, model, body, verb="predict"):
    """What the service answers this script."""
    request = urllib.request.Request(f"http://{address}/v1/models/{model}:{verb}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def predict(page):
    """Press the button, and wait for the answer."""
    page.get_by_role("button", name="Predict").click()
    expect(page.locator("#answer")).to_contain_text("There and back")


def explain(page):
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#explanation")).to_contain_text("Method")


def rows(page, place="#answer"):
    """The bars of an answer: names and numbers, in their order."""
    table = page.locator(f"{place} table.bars").first
    return list(
        zip(table.locator("th").all_inner_texts(), table.locator("td:last-child").all_inner_texts(), strict=True)
    )


def expected_rows(scores, labels):
    """What bars should say: the best first."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return [(labels[index], f"{scores[index]:.4f}") for index in order]


def assert_commands_work(page, expected, files=()):
    """Both commands, copied and run as they stand, answer what the page was answered."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files:
            Path(folder, name).write_bytes(data)
        for title, program in (("curl", ["sh", "-c"]), ("Python", [sys.executable, "-I", "-c"])):
            text = page.locator(f"pre[aria-label='{title}']").text_content()
            done = subprocess.run([*program, text], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, (text[:2000], done.stderr)
            assert json.loads(done.stdout) == expected, text[:2000]


def draw(page, points):
    """Draw on the pad with the pointer; places are of its 280 by 280."""
    pad = page.locator("canvas.pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    places = [(box["x"] + x * box["width"] / 280, box["y"] + y * box["height"] / 280) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


@cache
def picture():
    """A file with a picture, made by the browser."""
    page = browser().new_page()
    page.set_content("<body style='margin:0;height:40px;background:linear-gradient(90deg,#c33,#36c)'>")
    page.set_viewport_size({"width": 60, "height": 40})
    data = page.screenshot()
    page.close()
    return data


def choose_picture(page, name="a picture.png"):
    file = {"name": name, "mimeType": "image/png", "buffer": picture()}
    page.locator("input[type=file]").set_input_files(file)
    expect(page.locator(".drop")).to_contain_text(f"as the model sees it: 32 {TIMES} 32")


def check_a_number(address):
    """half_plus_two of 3 is 3.5; the commands answer the same, below a stage or a base path too."""
    for path in ("/", "/ml", "/ml/"):
        with opened(address, "half_plus_two", path=path) as page:
            page.get_by_label("x").fill("3")
            page.get_by_label("x").press("Enter")
            expect(page.locator("#answer .figure")).to_have_text("3.5")
            assert re.search(r"There and back\s+\d+(\.\d+)? ms", page.locator("#answer").inner_text())
            assert re.search(r"In the function\s+\d+(\.\d+)? ms", page.locator("#answer").inner_text())
            base = f"http://{address}{path.rstrip('/')}/v1/models/"
            assert base in page.locator("pre[aria-label=curl]").text_content()
            assert_commands_work(page, {"predictions": [3.5]})


def check_a_row_of_a_table(address):
    """A field for each column, by name; an empty one is a missing value, a category keeps its name."""
    labels = ["Adelie", "Chinstrap", "Gentoo"]
    with opened(address, "penguins") as page:
        assert page.get_by_label("mass").input_value() == "0.25"
        page.get_by_label("mass").fill("")
        page.get_by_label("island").select_option(label="Torgersen")
        predict(page)
        row = {"mass": None, "island": "Torgersen"}
        answer = ask(address, "penguins", {"instances": [row]})
        assert rows(page) == expected_rows(answer["predictions"][0], labels)
        assert_commands_work(page, answer)
        explain(page)
        found = ask(address, "penguins", {"instances": [row]}, "explain")["explanations"][0]["attributions"]
        shown = rows(page, "#explanation")
        assert {name: float(value) for name, value in shown} == {name: round(found[name], 4) for name in found}
        assert [name for name, _ in shown] == sorted(found, key=lambda name: -abs(found[name]))


def check_what_is_known_of_a_model(address):
    """Its figures, signature, labels, versions and aliases stand on the page."""
    with opened(address, "penguins") as page:
        about = page.locator("#about").inner_text()
        for text in ("classification", "accuracy", "0.98", "0.99", "mass", "category", f"rows {TIMES} 3", "Chinstrap"):
            assert text in about, text
        assert page.locator("#version option").all_inner_texts() == ["default", "latest (1)", "1"]
        page.locator("#version").select_option("latest")
        expect(page.locator("#workplace")).to_be_visible()
        predict(page)
        assert "/v1/models/penguins/labels/latest:predict" in page.locator("pre[aria-label=curl]").text_content()


def check_a_picture_from_a_file(address):
    """The file itself is sent; what a shell would read in its name is quoted; the explanation lies over the picture."""
    name = 'it\'s $HOME `id` "x".png'
    body = {"instances": [{"b64": base64.b64encode(picture()).decode()}]}
    with opened(address, "photos") as page:
        choose_picture(page, name)
        predict(page)
        answer = ask(address, "photos", body)
        assert rows(page) == expected_rows(answer["predictions"][0], [f"class {index}" for index in range(10)])
        assert_commands_work(page, answer, [(name, picture())])
        explain(page)
        overlay = page.get_by_role("img", name=re.compile("Attributions over the picture"))
        assert overlay.evaluate("canvas => [canvas.width, canvas.height]") == [32, 32]


def check_a_picture_that_is_dropped(address):
    """As one that is chosen; what is not a picture is refused in words."""
    drop = """([data, name]) => {
        const files = new DataTransfer();
        files.items.add(new File([Uint8Array.from(atob(data), (each) => each.charCodeAt(0))], name));
        document.querySelector(".drop").dispatchEvent(new DragEvent("drop", { dataTransfer: files, cancelable: true }));
    }"""
    with opened(address, "photos") as page:
        page.evaluate(drop, [base64.b64encode(b"not a picture").decode(), "notes.txt"])
        expect(page.locator(".drop")).to_contain_text("notes.txt is not a picture")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("photo: give a picture first.")
        page.evaluate(drop, [base64.b64encode(picture()).decode(), "dropped.png"])
        expect(page.locator(".drop")).to_contain_text("dropped.png")
        predict(page)


def check_a_picture_that_is_too_large(address):
    """A picture beyond what a request can have is made smaller, and can be saved as it is sent."""
    width, height = 2200, 800
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 0, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    file = {"name": "large.bmp", "mimeType": "image/bmp", "buffer": head + bytes(range(240)) * (width * height // 80)}
    with opened(address, "photos") as page:
        page.locator("input[type=file]").set_input_files(file)
        expect(page.locator(".drop")).to_contain_text("smaller.jpg, as the model sees it")
        predict(page)
        with page.expect_download() as download:
            page.get_by_role("link", name="Save the picture").click()
        data = Path(download.value.path()).read_bytes()
        answer = ask(address, "photos", {"instances": [{"b64": base64.b64encode(data).decode()}]})
        assert rows(page) == expected_rows(answer["predictions"][0], [f"class {index}" for index in range(10)])


def check_a_picture_from_the_camera(address):
    """The camera's picture is sent, and can be saved, so that the commands find it."""
    with opened(address, "photos") as page:
        page.get_by_role("button", name="Use the camera").click()
        expect(page.get_by_role("button", name="Take the picture")).to_be_focused()
        assert page.locator("video").evaluate("video => video.videoWidth > 0")
        page.get_by_role("button", name="Take the picture").click()
        expect(page.locator(".drop")).to_contain_text("camera.jpg")
        assert page.locator("video").count() == 0
        predict(page)
        with page.expect_download() as download:
            page.get_by_role("link", name="Save the picture").click()
        assert download.value.suggested_filename == "camera.jpg"
        data = Path(download.value.path()).read_bytes()
        answer = ask(address, "photos", {"instances": [{"b64": base64.b64encode(data).decode()}]})
        assert_commands_work(page, answer, [("camera.jpg", data)])


def check_the_camera_is_on_only_while_it_is_seen(address):
    """No picture can be taken before there is one; a file in its place and another model turn the camera off."""
    keep_tracks = """() => {
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.tracks = [];
        navigator.mediaDevices.getUserMedia = async (options) => {
            const stream = await ask(options);
            window.tracks.push(...stream.getTracks());
            return stream;
        };
    }"""
    states = "window.tracks.map((track) => track.readyState)"
    with opened(address, "photos") as page:
        page.evaluate(keep_tracks)
        use, take = (page.get_by_role("button", name=name) for name in ("Use the camera", "Take the picture"))
        use.click()
        expect(take).to_be_enabled()
        use.click()
        expect(take).to_be_focused()
        assert page.evaluate(states) == ["ended", "live"]
        choose_picture(page)
        assert page.evaluate(states) == ["ended", "ended"]
        use.click()
        expect(take).to_be_enabled()
        page.locator("#model").select_option("half_plus_two")
        expect(page.get_by_label("x", exact=True)).to_be_visible()
        assert page.evaluate(states) == ["ended", "ended", "ended"]
        page.locator("#model").select_option("photos")
        page.evaluate("""() => {
            const ask = navigator.mediaDevices.getUserMedia;
            const chosen = new Promise((resolve) => { window.agree = resolve; });
            navigator.mediaDevices.getUserMedia = (options) => (window.answer = chosen.then(() => ask(options)));
        }""")
        use.click()
        page.locator("#model").select_option("half_plus_two")
        expect(page.get_by_label("x", exact=True)).to_be_visible()
        page.evaluate("() => { window.agree(); return window.answer.then(() => null); }")
        assert page.evaluate(states) == ["ended"] * 4
        page.locator("#model").select_option("photos")
        page.evaluate("() => { navigator.mediaDevices.getUserMedia = async () => new MediaStream(); }")
        use.click()
        expect(take).to_be_disabled()


def check_a_drawing(address):
    """A line that is drawn down is vertical; one that is drawn with the keys across is not. Clear takes it away."""
    with opened(address, "strokes") as page:
        draw(page, [(60, 40), (60, 240)])
        predict(page)
        assert rows(page)[0][0] == "vertical"
        body = json.loads(re.search(r"--data-binary '(.*)'", page.locator("pre[aria-label=curl]").text_content())[1])
        (image,) = body["instances"]
        assert (len(image), len(image[0])) == (28, 28)
        assert_commands_work(page, ask(address, "strokes", body))
        explain(page)
        assert "vertical" in page.locator("#explanation h3").inner_text()
        page.get_by_role("button", name="Clear").click()
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("image: give a picture first.")
        page.locator("canvas.pad").focus()
        page.keyboard.press("Space")
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Space")
        predict(page)
        assert rows(page)[0][0] == "horizontal"


def check_a_text(address):
    """Marks the words, each in its place, whatever characters come before it; the commands keep every character."""
    text = 'Good 🐧, "very" it\'s $HOME `id` \\ é bad'
    with opened(address, "words") as page:
        page.get_by_label("review").fill(text)
        predict(page)
        answer = ask(address, "words", {"instances": [text]})
        assert rows(page) == expected_rows(answer["predictions"][0], ["negative", "positive"])
        assert_commands_work(page, answer)
        explain(page)
        assert page.locator("#explanation .words").text_content() == text
        marked = page.locator("#explanation .words .for").all_inner_texts()
        assert {"Good", "very"} <= set(marked)
        assert "bad" not in marked  # the model reads eight tokens


def check_several_inputs_and_outputs(address):
    """Each input has its field and each output its place; whole tensors are sent as columns."""
    with opened(address, "two_by_two") as page:
        for index, value in enumerate(("1", "2", "3")):
            page.get_by_label(f"[{index}]").fill(value)
        page.get_by_label("b", exact=True).fill("4")
        predict(page)
        assert page.locator("#answer h3").all_inner_texts() == ["total", "twice"]
        assert page.locator("#answer .figure").all_inner_texts() == ["10", "8"]
        assert_commands_work(page, {"predictions": [{"total": 10.0, "twice": 8}]})
    with opened(address, "whole") as page:
        predict(page)
        assert_commands_work(page, {"outputs": {"y": [0.0, 0.0], "z": [[1, 1, 1]]}})


def check_several_signatures(address):
    """Each has its form, and requests name it; the default one is asked for without its name."""

    def add_signature(route):
        document = route.fetch().json()
        signatures = document["metadata"]["signature_def"]["signature_def"]
        signatures["twice"] = json.loads(json.dumps(signatures["serving_default"]).replace('"x"', '"number"'))
        route.fulfill(json=document)

    asked = []

    def answer(route):
        asked.append(route.request.post_data_json)
        route.fulfill(json={"predictions": [14.0]})

    with opened(address) as page:
        page.route("**/metadata", add_signature)
        page.route("**:predict", answer)
        page.locator("#model").select_option("half_plus_two")
        page.get_by_label("x", exact=True).fill("7")
        predict(page)
        page.get_by_label("Signature").select_option("twice")
        page.get_by_label("number", exact=True).fill("7")
        predict(page)
        expect(page.locator("#answer .figure")).to_have_text("14")
        assert asked == [{"instances": [7]}, {"signature_name": "twice", "instances": [7]}]


def check_a_request_by_hand(address):
    """The JSON begins as the form's, is sent as it is written, and what is wrong with it is said."""
    with opened(address, "half_plus_two") as page:
        page.get_by_label("x").fill("3")
        page.get_by_text("Write the request as JSON").click()
        request = page.get_by_label("Request", exact=True)
        expect(request).not_to_have_value("")
        assert json.loads(request.input_value()) == {"instances": [3]}
        request.fill('{"instances": [8]}')
        predict(page)
        expect(page.locator("#answer .figure")).to_have_text("6")
        for text, problem in (("{", "not JSON"), ("{}", "needs a list of rows"), ('{"instances": ["x"]}', "400: ")):
            request.fill(text)
            page.get_by_role("button", name="Predict").click()
            expect(page.locator("#answer .problem")).to_contain_text(problem)


def check_errors_are_readable(address):
    """A field that is not filled in, the service's own words, a gateway's, and no answer at all."""
    with opened(address, "half_plus_two") as page:
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer")).to_contain_text("x: enter a number.")
        page.get_by_label("x").fill("1e39")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .problem")).to_have_text(re.compile("^400: .*1e\\+?39|^400: .*float32"))
        page.route("**:predict", lambda route: route.fulfill(status=503, json={"message": "Service Unavailable"}))
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .problem")).to_have_text("503: Service Unavailable")
        page.unroute("**:predict")
        page.route("**:predict", lambda route: route.abort())
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .problem")).to_contain_text("No answer. Check that the service runs")


def check_a_service_that_explains_nothing(address):
    """The button goes where a model has no explanations."""
    with opened(address, "half_plus_two", routes=[("**:explain", 501, {"error": "not supported"})]) as page:
        page.get_by_label("x").fill("1")
        page.get_by_role("button", name="Explain").click()
        expect(page.locator("#explanation .problem")).to_have_text("501: not supported")
        assert not page.get_by_role("button", name="Explain").is_visible()


def check_access(address):
    """A service that asks who is calling gets a token and a key with every request; the commands do not show them."""
    seen = []

    def guard(route):
        headers = route.request.headers
        if headers.get("authorization") != "Bearer secret-1":
            return route.fulfill(status=401, json={"message": "Unauthorized"})
        seen.append(headers.get("x-api-key"))
        return route.continue_()

    with opened(address) as page:
        page.route(re.compile(r"/v[12]/"), guard)
        page.reload()
        expect(page.locator("#status")).to_contain_text("401: Unauthorized")
        page.get_by_label("Bearer token").fill("secret-1")
        page.get_by_label("API key").fill("secret-2")
        page.get_by_role("button", name="Use", exact=True).click()
        expect(page.locator("#workplace")).to_be_visible()
        page.locator("#model").select_option("half_plus_two")
        page.get_by_label("x").fill("1")
        predict(page)
        assert set(seen) == {"secret-2"}
        for title, name in (("curl", "$TOKEN"), ("Python", "os.environ['TOKEN']")):
            text = page.locator(f"pre[aria-label={title}]").text_content()
            assert name in text
            assert "secret" not in text


def check_nothing_from_others_is_html(address):
    """Names, labels, categories, attributions and errors that are HTML stay text, and run nothing."""
    tensor = {"name": HOSTILE, "datatype": "FP32", "shape": [-1, 2]}
    field = {"name": HOSTILE, "type": "category", "shape": [-1], "categories": [HOSTILE], "missing": HOSTILE}
    metadata = {
        "name": HOSTILE, "versions": [HOSTILE], "platform": HOSTILE, "inputs": [tensor], "outputs": [tensor],
        "raw_inputs": [field],
        "parameters": {"labels": [HOSTILE, "b"], "task": HOSTILE, "created": HOSTILE,
                       "metrics": {"quantized": {HOSTILE: 1}}},
    }  # fmt: skip
    info = {"dtype": HOSTILE, "tensor_shape": {"dim": [{"size": HOSTILE}]}}
    signature = {"inputs": {HOSTILE: info}, "outputs": {HOSTILE: info}}
    explanation = {"method": HOSTILE, "baseline": HOSTILE, "label": HOSTILE, "runs": HOSTILE,
                   "attributions": {HOSTILE: 0.5}}  # fmt: skip
    operation = {"summary": HOSTILE, "responses": {HOSTILE: {"description": HOSTILE}},
                 "parameters": [{"name": HOSTILE, "in": HOSTILE, "schema": {"const": HOSTILE}}]}  # fmt: skip
    api = {
        "info": {"title": HOSTILE, "version": HOSTILE, "description": HOSTILE},
        "paths": {HOSTILE: {HOSTILE: operation}},
    }
    routes = [
        ("**/v2/repository/index", 200, [{"name": HOSTILE, "version": HOSTILE, "aliases": [HOSTILE]}]),
        (re.compile("/v2/models/"), 200, metadata),
        (re.compile("/metadata$"), 200, {"metadata": {"signature_def": {"signature_def": {HOSTILE: signature}}}}),
        (re.compile(":predict"), 200, {"predictions": [[0.5, 0.25]]}),
        (re.compile(":explain"), 200, {"predictions": [[0.5, 0.25]], "explanations": [explanation]}),
        ("**/openapi.json", 200, api),
    ]
    with opened(address, routes=routes) as page:
        predict(page)
        explain(page)
        assert rows(page)[0][0] == HOSTILE
        page.unroute(re.compile(":predict"))
        page.route(re.compile(":predict"), lambda route: route.fulfill(status=400, json={"error": HOSTILE}))
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .problem")).to_have_text(f"400: {HOSTILE}")
        page.get_by_role("link", name="API").click()
        page.locator("#api summary").first.click()
        expect(page.locator("#api details[open] dl")).to_contain_text(HOSTILE)
        expect(page.locator("#api h2").first).to_contain_text(HOSTILE)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 1
        said = list(SAID)
        as_html = "(text) => { try { document.body.innerHTML = text; } catch (error) { return error.name; } }"
        assert page.evaluate(as_html, HOSTILE) == "TypeError"  # Trusted Types: the page's own script could not either
        SAID[:] = said


def check_the_reference(address):
    """`openapi.json` for people: each path, what it takes and what it answers."""
    with opened(address, path="/#api") as page:
        expect(page.locator("#api h2").first).to_contain_text("litelambda")
        paths = page.locator("#api summary code").all_inner_texts()
        with urllib.request.urlopen(f"http://{address}/openapi.json", timeout=30) as answer:
            document = json.load(answer)
        assert sorted(set(paths)) == sorted(document["paths"])
        page.locator("summary", has_text="/v1/models/penguins:predict").click()
        for text in ('"mass": number or null', '"top_k"?: integer', "503"):
            expect(page.locator("details[open]")).to_contain_text(text, use_inner_text=True)


def check_the_keyboard_is_enough(address):
    """From the top of the page to an answer with keys alone; what has the focus is outlined."""
    with opened(address, "half_plus_two") as page:
        names = []
        for _ in range(12):
            page.keyboard.press("Tab")
            focused = page.evaluate("""() => {
                const element = document.activeElement;
                const style = getComputedStyle(element);
                return [element.id || element.textContent || element.type, style.outlineStyle];
            }""")
            assert focused[1] != "none", focused
            names.append(focused[0])
            if focused[0] == "number":
                page.keyboard.type("3")
            if focused[0] == "predict":
                page.keyboard.press("Enter")
                break
        assert names[:5] == ["Skip to the content", "Models", "API", "model", "version"]
        expect(page.locator("#answer .figure")).to_have_text("3.5")


def fill(page, model):
    """An answer and an explanation of each kind of model."""
    if model == "photos":
        choose_picture(page)
    elif model == "words":
        page.get_by_label("review").fill("very good, not bad")
    elif model == "strokes":
        draw(page, [(60, 40), (60, 240)])
    elif model == "half_plus_two":
        page.get_by_label("x").fill("3")
    predict(page)
    explain(page)


def faults(page, **options):
    """The serious and critical faults that axe-core finds, each with its first places."""
    violations = Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    serious = [each for each in violations if each["impact"] in ("serious", "critical")]
    return [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in serious]


def assert_good_in_all_forms(page, name):
    """No fault by axe-core's rules; in both themes and both widths enough contrast, and nothing beyond the window."""
    assert faults(page) == [], name
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (name, theme, width)
            if os.environ.get("SCREENSHOTS"):
                page.screenshot(path=f"{os.environ['SCREENSHOTS']}/{name}-{theme}-{width}.png", full_page=True)
        assert faults(page, runOnly=["color-contrast", "target-size"]) == [], (name, theme)


def check_each_kind_of_model_is_for_everyone(address):
    """Numbers, tables, texts, pictures and drawings, with answer and explanation, and the API's reference."""
    for model in ("half_plus_two", "penguins", "words", "photos", "strokes"):
        with opened(address, model) as page:
            fill(page, model)
            assert_good_in_all_forms(page, model)
    with opened(address, path="/#api") as page:
        page.locator("summary", has_text="/v1/models/penguins:predict").first.click()
        expect(page.locator("details[open]")).to_contain_text("503")
        assert_good_in_all_forms(page, "api")


def check_nothing_moves_for_those_who_ask(address):
    """With reduced motion, nothing has a transition or an animation."""
    with opened(address, "half_plus_two") as page:
        page.emulate_media(reduced_motion="reduce")
        fill(page, "half_plus_two")
        moving = "getComputedStyle(each).transitionDuration !== '0s' || getComputedStyle(each).animationName !== 'none'"
        assert page.evaluate(f"[...document.querySelectorAll('*')].filter((each) => {moving}).length") == 0


def check_last_that_nothing_else_was_asked_or_said(address):
    """In all of these checks the page asked its own service alone, and the browser refused nothing."""
    assert ASKED
    assert [url for url in ASKED if not url.startswith((f"http://{address}/", "blob:", "data:"))] == []
    assert SAID == []
