// Zooms an image within a frame that scrolls: by buttons, by keys, by Ctrl with the wheel.
const STEP = 1.25, LARGEST = 16; // CSS pixels for one pixel of the image

/** Let `canvas`, which is `width` pixels of an image wide, be zoomed within `frame`; `buttons` have data-zoom. */
export function zoomable(frame, canvas, width, buttons) {
  let scale = null, fitting = null; // CSS pixels for one pixel; null: the image fits into the frame

  const present = () => canvas.getBoundingClientRect().width / width;
  const middle = () => {
    const box = frame.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };

  /** Show the image at a scale; what lies below [x, y] stays there. */
  function zoom(to, [x, y] = middle()) {
    const before = canvas.getBoundingClientRect();
    if (scale === null) fitting = present();
    scale = to === null || (to <= fitting && to !== 1) ? null : Math.min(to, LARGEST);
    frame.classList.toggle("zoomed", scale !== null);
    canvas.style.width = scale === null ? "" : `${scale * width}px`;
    const after = canvas.getBoundingClientRect();
    frame.scrollLeft += after.left + ((x - before.left) / before.width) * after.width - x;
    frame.scrollTop += after.top + ((y - before.top) / before.height) * after.height - y;
    mark();
  }

  function mark() {
    const pressed = scale === null ? "fit" : scale === 1 ? "one" : "";
    for (const button of buttons.children) if (["fit", "one"].includes(button.dataset.zoom)) button.setAttribute("aria-pressed", String(button.dataset.zoom === pressed));
  }

  const steps = { in: () => zoom(present() * STEP), out: () => zoom(present() / STEP), fit: () => zoom(null), one: () => zoom(1) };
  const keys = { "+": "in", "=": "in", "-": "out", 0: "fit", 1: "one" };
  buttons.addEventListener("click", (event) => steps[event.target.dataset.zoom]?.());
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    steps[keys[event.key]]();
  });
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the wheel alone scrolls
    event.preventDefault();
    zoom(present() * STEP ** -Math.sign(event.deltaY), [event.clientX, event.clientY]);
  }, { passive: false });
  mark();
}
