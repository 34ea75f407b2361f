// A pad to draw a digit on, by pointer or by keys. Gives what was drawn as MNIST has its digits.

const PAD = 280;
const PEN = 20;
const KEY_STEP = 10;
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

class DrawingPad {
  /** `changed` is called with a canvas of 28 × 28, or with null where nothing is drawn. */
  constructor(changed) {
    this.changed = changed;
    const help = newId();
    this.canvas = make("canvas", {
      className: "pad", width: PAD, height: PAD, tabIndex: 0, role: "application",
      "aria-label": "Drawing pad", "aria-describedby": help,
    });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    const clear = make("button", { type: "button", className: "plain small" }, "Clear");
    clear.addEventListener("click", () => this.clear());
    const hint = make("p", { className: "hint", id: help }, "Draw here. With keys: the arrows move, Space lowers and lifts the pen.");
    this.element = make("div", {}, this.canvas, hint, clear);
    this.pen = { x: PAD / 2, y: PAD / 2, down: false };
    this.listen();
    this.wipe();
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pen = { ...this.place(event), down: true };
      this.lineTo(this.pen);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.pen.down && event.buttons) this.lineTo(this.place(event));
    });
    canvas.addEventListener("pointerup", () => this.lift());
    canvas.addEventListener("pointercancel", () => this.lift());
    canvas.addEventListener("keydown", (event) => this.press(event));
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) * PAD) / box.width, y: ((event.clientY - box.top) * PAD) / box.height };
  }

  press(event) {
    if (event.key === " ") {
      if (this.pen.down) this.lift();
      else this.pen.down = true;
    } else if (event.key in STEPS) {
      const [right, below] = STEPS[event.key];
      const within = (value) => Math.min(PAD, Math.max(0, value));
      const next = { x: within(this.pen.x + KEY_STEP * right), y: within(this.pen.y + KEY_STEP * below) };
      if (this.pen.down) this.lineTo(next);
      else Object.assign(this.pen, next);
    } else return;
    event.preventDefault();
  }

  lineTo({ x, y }) {
    const { context } = this;
    Object.assign(context, { strokeStyle: "#fff", lineWidth: PEN, lineCap: "round", lineJoin: "round" });
    context.beginPath();
    context.moveTo(this.pen.x, this.pen.y);
    context.lineTo(x, y);
    context.stroke();
    Object.assign(this.pen, { x, y });
  }

  lift() {
    if (!this.pen.down) return;
    this.pen.down = false;
    this.changed(asInMnist(this.canvas));
  }

  wipe() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, PAD, PAD);
  }

  clear() {
    this.wipe();
    this.pen.down = false;
    this.changed(null);
  }
}

/** A drawing as MNIST's: its box scaled to 20 × 20, with its center of mass in the middle of 28 × 28. */
function asInMnist(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, PAD, PAD);
  let [mass, massX, massY, left, top, right, bottom] = [0, 0, 0, PAD, PAD, 0, 0];
  for (let at = 0; at < data.length; at += 4) {
    if (!data[at]) continue;
    const [x, y] = [(at / 4) % PAD, Math.floor(at / 4 / PAD)];
    mass += data[at];
    massX += data[at] * x;
    massY += data[at] * y;
    [left, right] = [Math.min(left, x), Math.max(right, x)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  }
  const small = make("canvas", { width: 28, height: 28 });
  const context = small.getContext("2d");
  context.fillRect(0, 0, 28, 28);
  const scale = 20 / Math.max(right - left + 1, bottom - top + 1);
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, 14 - (massX / mass) * scale, 14 - (massY / mass) * scale, PAD * scale, PAD * scale);
  return small;
}
