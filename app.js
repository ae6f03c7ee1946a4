// Scripts of the page. app.py puts this file into the page's head and calls the functions below from components.

// Let screen readers announce new answers.
function announceAnswers(element) {
  element.setAttribute("aria-live", "polite");
}

// -- Compare: photos --------------------------------------------------------------------------------------------------

const photoInputs = () => [...document.querySelectorAll("#photos .photo-input")];
const photoIn = (input) => input.querySelector(".image-frame img");

// Return the folder of an upload, a hash of its content. `showPreviews` may have replaced the source of the image.
function keyOf(image) {
  const source = image?.dataset.upload ?? image?.src;
  return source ? source.split("/").at(-2) : "-";
}

// Hide the browser's broken-image icon: the page shows a preview, or explains in words what is wrong with an upload.
function onImage({target, type}) {
  if (target.tagName === "IMG") target.style.visibility = type === "error" ? "hidden" : "";
}
document.addEventListener("error", onImage, true);
document.addEventListener("load", onImage, true);

// Ask the server for previews of photos that the browser cannot draw.
function showPreviews(element, trigger, watch) {
  document.addEventListener("error", ({target}) => target.closest?.("#photos .image-frame") && trigger("select"), true);
  watch("value", () => {
    for (const image of photoInputs().map(photoIn).filter((image) => image?.style.visibility === "hidden")) {
      const preview = element.querySelector(`[data-photos="${keyOf(image)}"] img`);
      if (preview) Object.assign(image.dataset, {upload: image.src}) && (image.src = preview.src);
    }
  });
}

// -- Compare: answers -------------------------------------------------------------------------------------------------

let waiting = false; // for the answer to a click
let failed = false; // the server gave no answer
let last = "";

// Show an answer only next to the photos that it is for. Otherwise, show what is missing, or that the page compares.
// This runs before the browser paints a change, so that an old answer is never painted next to new photos.
function update() {
  const compare = document.querySelector("#compare");
  if (!compare) return;
  const keys = photoInputs().map((input) => keyOf(photoIn(input)));
  const forThese = (id) => compare.querySelector(`#${id} [data-photos="${keys.join(" ")}"]`);
  const [answer, compared] = [forThese("answer"), forThese("compared")];
  const now = [...keys, answer?.dataset.choice].join(" ");
  if (now !== last) [waiting, failed, last] = [false, false, now];

  const missing = ["both", "first", "second"].find((_, place) => [
    keys.every((key) => key === "-"), keys[0] === "-", keys[1] === "-",
  ][place]);
  const state = failed ? "failed" : waiting ? "comparing" : answer ? "answered" : missing ? `missing-${missing}`
    : "comparing";
  const show = (selector, isShown) => compare.querySelectorAll(selector).forEach((part) => part.hidden = !isShown(part));
  show("[data-state]", (card) => card.dataset.state === state);
  show("#states", () => state !== "answered");
  show("#answer", () => state === "answered");
  show("#compared, #among", () => compared && !failed);
  show("#strictness", () => !failed && answer?.querySelector(".verdict"));
  compare.classList.toggle("waiting", waiting);
}
new MutationObserver(update).observe(document, {
  subtree: true, childList: true, attributeFilter: ["src", "data-photos", "data-choice"],
});

function waitForAnswer() {
  [waiting, failed] = [true, false];
  update();
}

function showFailure() {
  [waiting, failed] = [false, true];
  update();
}

document.addEventListener("change", ({target}) => target.closest("#strictness") && waitForAnswer());

// Scroll the verdict into view, for example on a phone.
function scrollToAnswer() {
  const card = [...document.querySelectorAll("#compare .answer")].find((card) => card.checkVisibility());
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  card?.scrollIntoView({block: "nearest", behavior: calm ? "instant" : "smooth"});
}

// -- Compare: examples and faces --------------------------------------------------------------------------------------

// Add the photos of an example.
function chooseExample(element, trigger) {
  element.addEventListener("click", ({target}) => {
    const button = target.closest("[data-example]");
    if (!button) return;
    const names = photoInputs().map((input) => photoIn(input)?.src.split("/").at(-1)).join(" ");
    if (names !== button.dataset.files) waitForAnswer();
    trigger("select", {example: Number(button.dataset.example)});
    scrollToAnswer();
  });
}

// Report the face that the user chooses. The faces are then drawn again, so the focus must be restored.
function chooseFaces(element, trigger, watch) {
  let chosen = null;
  element.addEventListener("click", ({target}) => {
    const button = target.closest("[data-face]");
    if (!button) return;
    const {photo, face} = button.dataset;
    chosen = face ? `[data-photo="${photo}"][data-face="${face}"]` : "[data-face]";
    waitForAnswer();
    trigger("select", {photo: Number(photo), face: face ? Number(face) : null});
  });
  watch("value", () => {
    if (chosen) element.querySelector(chosen)?.focus();
    chosen = null;
  });
  element.addEventListener("input", ({target}) => {
    target.closest(".wipe")?.style.setProperty("--wipe", `${target.value}%`);
  });
}

// -- Find and Group ---------------------------------------------------------------------------------------------------

function chooseGroupExample(element, trigger) {
  element.addEventListener("click", ({target}) => target.closest("[data-example]") && trigger("select", {}));
}

// Report the chosen faces, at most two, and download the photos by person.
function onGroup(element, trigger, watch) {
  let chosen = [];
  element.addEventListener("click", ({target}) => {
    const button = target.closest("[data-face], [data-zip]");
    if (button?.dataset.zip) downloadPhotos(button);
    if (!button?.dataset.face) return;
    const face = Number(button.dataset.face);
    chosen = chosen.includes(face) ? chosen.filter((other) => other !== face) : [...chosen, face].slice(-2);
    for (const tile of element.querySelectorAll("[data-face]"))
      tile.setAttribute("aria-pressed", chosen.includes(Number(tile.dataset.face)));
    trigger("select", {faces: chosen});
  });
  watch("value", () => chosen = []);
}

// Build a ZIP archive of uploads in the browser.
async function downloadPhotos(button) {
  const status = button.closest(".people").querySelector("[role=status]");
  try {
    const files = await Promise.all(JSON.parse(button.dataset.zip).map(async ([name, path]) => {
      const answer = await fetch(`gradio_api/file=${encodeURI(path)}`);
      if (!answer.ok) throw Error(answer.status);
      return [name, new Uint8Array(await answer.arrayBuffer())];
    }));
    const url = URL.createObjectURL(new Blob(zip(files), {type: "application/zip"}));
    Object.assign(document.createElement("a"), {href: url, download: "photos-by-person.zip"}).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    status.textContent = "";
  } catch {
    status.textContent = "A photo was deleted. Uploads are deleted after half an hour; add the photos again.";
  }
}

const CRC_TABLE = Uint32Array.from({length: 256}, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

// Return the parts of an archive that stores [name, bytes] without compression.
function zip(files) {
  const parts = [], directory = [];
  let offset = 0;
  for (const [name, bytes] of files) {
    const path = new TextEncoder().encode(name);
    const crc = ~bytes.reduce((crc, byte) => CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8), -1);
    // Version 2.0, UTF-8 names, stored, 1 January 1980.
    const common = numbers([20, 2], [0x800, 2], [0, 2], [0, 2], [0x21, 2], [crc, 4], [bytes.length, 4],
      [bytes.length, 4], [path.length, 2], [0, 2]);
    parts.push(numbers([0x04034b50, 4]), common, path, bytes);
    directory.push(numbers([0x02014b50, 4], [20, 2]), common, numbers([0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), path);
    offset += 30 + path.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = numbers([0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [size, 4], [offset, 4],
    [0, 2]);
  return [...parts, ...directory, end];
}

// Return little-endian [value, number of bytes] after one another.
function numbers(...fields) {
  return Uint8Array.from(fields.flatMap(([value, size]) => Array.from({length: size}, (_, byte) => value >>> (8 * byte))));
}
