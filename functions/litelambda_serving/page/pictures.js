// A picture for a field: from a file, dropped or pasted, from the camera, or drawn. The model's view of it is shown.

/** The bytes of a picture's file, which JSON has in base64. */
class PictureFile {
  constructor(name, base64) {
    this.name = name;
    this.base64 = base64;
  }

  toJSON() {
    return { b64: this.base64 };
  }
}

/**
 * A field that takes a picture.
 * `shape` is height, width and channels. With `asFile` the service decodes and resizes the file as in training; else
 * the pixels are made here, and `read` has them as nested numbers.
 */
class PictureControl {
  constructor(name, shape, { asFile, fit = "stretch", range = "" }) {
    this.name = name;
    [this.height, this.width, this.channels] = shape;
    this.asFile = asFile;
    this.fit = fit;
    this.file = null;
    this.stopCamera = () => {};
    this.view = make("canvas", { width: this.width, height: this.height, hidden: true, role: "img" });
    this.message = make("span", { className: "hint" }, "Drop or paste a picture here");
    this.range = make("select", {}, option("255", "0 to 255"), option("1", "0 to 1"), option("2", "-1 to 1"));
    this.range.value = range || "255";
    this.element = make("fieldset", { className: "picture" }, make("legend", {}, name), ...this.parts());
  }

  parts() {
    const input = make("input", { type: "file", accept: "image/*" });
    input.addEventListener("change", () => input.files[0] && this.take(input.files[0]));
    this.camera = make("button", { type: "button", className: "plain" }, "Use the camera");
    this.camera.addEventListener("click", () => this.useCamera());
    this.save = make("a", { className: "button", download: "", hidden: true }, "Save the picture");
    this.drop = make("div", { className: "drop" }, this.view, this.message);
    this.listen(this.drop);
    const parts = [this.drop];
    if (this.width === 28 && this.height === 28) {
      this.pad = new DrawingPad((canvas) => this.takeDrawing(canvas));
      parts.unshift(this.pad.element);
      this.drop.classList.add("pad-view");
    }
    const choose = make("label", { className: "button" }, "Choose a file", input);
    parts.push(make("div", { className: "row" }, choose, this.camera, this.save));
    this.stage = make("div", { hidden: true });
    parts.push(this.stage);
    if (!this.asFile) parts.push(labelled("Pixel values", this.range));
    return parts;
  }

  listen(place) {
    for (const kind of ["dragover", "dragleave", "drop"]) {
      place.addEventListener(kind, (event) => {
        event.preventDefault();
        place.classList.toggle("over", kind === "dragover");
        const file = event.dataTransfer.files[0];
        if (kind === "drop" && file) this.take(file);
      });
    }
    document.addEventListener("paste", (event) => {
      const file = event.clipboardData.files[0];
      if (file && place.isConnected) this.take(file);
    });
  }

  /** Take a file; one that was made here can be saved, so that the commands find it. */
  async take(file, isMade = false) {
    this.stopCamera();
    let picture;
    try {
      picture = await createImageBitmap(file);
    } catch {
      this.say(`${file.name} is not a picture that this browser can read.`);
      return;
    }
    if (this.asFile && !isMade && file.size > MOST_BYTES) {
      await this.take(await smaller(picture), true);
      return;
    }
    this.file = this.asFile ? new PictureFile(file.name, await base64Of(file)) : null;
    this.show(picture, file.name);
    URL.revokeObjectURL(this.save.href);
    this.save.hidden = !isMade;
    if (isMade) Object.assign(this.save, { href: URL.createObjectURL(file), download: file.name });
  }

  takeDrawing(canvas) {
    if (canvas === null) this.clear();
    else if (this.asFile) fileOf(canvas, "drawing.png", "image/png").then((file) => this.take(file, true));
    else this.show(canvas, "your drawing");
  }

  clear() {
    this.file = null;
    this.view.hidden = this.save.hidden = true;
    this.say("Drop or paste a picture here");
  }

  say(text) {
    this.message.textContent = text;
  }

  /** Draw a picture as the model sees it: its size, and made to fit as in training. */
  show(picture, name) {
    const context = this.view.getContext("2d", { willReadFrequently: true });
    const { width, height } = this;
    const scales = [width / picture.width, height / picture.height];
    const scale = { crop: Math.max(...scales), pad: Math.min(...scales) }[this.fit];
    const [wide, high] = scale ? [picture.width * scale, picture.height * scale] : [width, height];
    context.imageSmoothingQuality = "high";
    context.fillStyle = this.fit === "pad" ? "#fff" : "#000";
    context.fillRect(0, 0, width, height);
    context.drawImage(picture, (width - wide) / 2, (height - high) / 2, wide, high);
    if (this.channels === 1) toGray(context, width, height);
    this.view.hidden = false;
    this.view.setAttribute("aria-label", `${name}, as the model sees it`);
    this.say(`${name}, as the model sees it: ${width} × ${height}`);
  }

  async useCamera() {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      this.say("The camera cannot be used: the browser allows it on https and localhost alone, and only if you agree.");
      return;
    }
    this.stopCamera(); // the button may have been pressed twice
    if (!this.element.isConnected) {
      for (const track of stream.getTracks()) track.stop(); // another model was chosen meanwhile
      return;
    }
    const video = make("video", { autoplay: true, muted: true, playsInline: true, "aria-label": "The camera's picture" });
    const take = make("button", { type: "button", className: "plain", disabled: true }, "Take the picture");
    this.stopCamera = () => {
      for (const track of stream.getTracks()) track.stop();
      this.stage.replaceChildren();
      this.stage.hidden = true;
      this.stopCamera = () => {};
    };
    take.addEventListener("click", () => {
      const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      fileOf(canvas, "camera.jpg", "image/jpeg").then((file) => this.take(file, true));
      this.stopCamera();
      this.camera.focus();
    });
    video.addEventListener("loadeddata", () => {
      take.disabled = false; // before its first frame the video has no size
      take.focus();
    });
    video.srcObject = stream;
    this.stage.replaceChildren(video, take);
    this.stage.hidden = false;
  }

  /** The field's value. */
  read() {
    if (this.view.hidden) throw new Problem(`${this.name}: give a picture first.`);
    return this.asFile ? this.file : this.pixels();
  }

  pixels() {
    const { data } = this.view.getContext("2d").getImageData(0, 0, this.width, this.height);
    const range = Number(this.range.value);
    const value = { 255: (byte) => byte, 1: (byte) => byte / 255, 2: (byte) => byte / 127.5 - 1 }[range];
    const rounded = (byte) => Number(value(byte).toFixed(4));
    const pixel = (at) => [0, 1, 2].slice(0, this.channels).map((channel) => rounded(data[at + channel]));
    const rows = [];
    for (let y = 0; y < this.height; y += 1) {
      rows.push(Array.from({ length: this.width }, (_, x) => pixel(4 * (y * this.width + x))));
    }
    return rows;
  }
}

// A request has 6 MB at most, and base64 takes a third more.
const MOST_BYTES = 4.4e6;
const MOST_PIXELS = 2048; // along a side of a picture that is made smaller

/** A picture that is too large for a request, as a file that is not. */
function smaller(picture) {
  const scale = Math.min(1, MOST_PIXELS / Math.max(picture.width, picture.height));
  const canvas = make("canvas", { width: Math.round(picture.width * scale), height: Math.round(picture.height * scale) });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return fileOf(canvas, "smaller.jpg", "image/jpeg");
}

function fileOf(canvas, name, type) {
  return new Promise((resolve) => {
    canvas.toBlob((blob) => resolve(new File([blob], name, { type })), type, 0.92);
  });
}

/** As Pillow turns colors into gray (ITU-R 601-2 luma). */
function toGray(context, width, height) {
  const image = context.getImageData(0, 0, width, height);
  const { data } = image;
  for (let at = 0; at < data.length; at += 4) {
    data.fill((data[at] * 299 + data[at + 1] * 587 + data[at + 2] * 114) / 1000, at, at + 3);
  }
  context.putImageData(image, 0, 0);
}

function base64Of(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
