// Scripts of the page. app.py puts this file into the page's head and calls the functions below from components.

const inTab = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility());
const photoInputs = () => [...document.querySelectorAll("#photos .photo-input")];
const photoIn = (input) => input.querySelector(".image-frame img");
const fileIn = (input) => input.querySelector("input[type=file]");

// Let screen readers announce new answers, and scroll to them, if `watch` is given.
function announceAnswers(element, watch) {
  element.setAttribute("aria-live", "polite");
  watch?.("value", () => reveal(element.querySelector(".answer:not(.hint)")));
}

// Not smoothly: browsers end a smooth scroll when the layout changes, as it does with every answer.
function reveal(card) {
  card?.scrollIntoView({block: "nearest", behavior: "instant"});
}

// Say something that is not an answer, below the title.
function notify(text) {
  const note = document.querySelector("#note");
  if (note) [note.textContent, note.hidden] = [text, !text];
}

// -- Photos: choose, drop, paste, take --------------------------------------------------------------------------------

const LARGE_BYTES = 4e6; // above this, a photo is reduced before it is sent
const MAX_SIDE = 2000; // pixels; the face detector uses no more

// Reduce a large photo. What the browser cannot decode is sent as it is.
async function reduced(file) {
  if (file.size <= LARGE_BYTES) return file;
  try {
    const image = await createImageBitmap(file);
    const scale = Math.min(1, MAX_SIDE / Math.max(image.width, image.height));
    const canvas = new OffscreenCanvas(Math.round(image.width * scale), Math.round(image.height * scale));
    const context = canvas.getContext("2d");
    Object.assign(context, {fillStyle: "white", imageSmoothingQuality: "high"}).fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const type = "image/jpeg";
    const blob = await canvas.convertToBlob({type, quality: 0.95});
    return new File([blob], file.name.replace(/\.\w+$/, "") + ".jpg", {type});
  } catch {
    return file;
  }
}

// Hand files to an input of Gradio.
async function give(input, files) {
  const list = new DataTransfer();
  for (const file of await Promise.all([...files].map(reduced))) list.items.add(file);
  input.files = list.files;
  input.dispatchEvent(new CustomEvent("change", {bubbles: true, detail: "reduced"}));
}

addEventListener("change", (event) => {
  if (event.target.type !== "file" || event.detail === "reduced") return;
  event.stopImmediatePropagation();
  give(event.target, event.target.files);
}, true);

// Take files that were dropped anywhere or pasted: one goes into the input below or the first empty one, several into
// both photos, or into the input for several photos.
function take(event, data) {
  if (!data?.files.length) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const [singles, [many]] = [inTab(".photo-input"), inTab(".photos-input")];
  const over = event.target.closest?.(".photo-input, .photos-input");
  const order = [over, ...singles.filter((input) => !photoIn(input)), ...singles].filter((input) => singles.includes(input));
  const full = order.every(photoIn);
  if (many && (over === many || !singles.includes(over) && (full || data.files.length > 1))) {
    give(fileIn(many), data.files);
  } else if (order.length && (over || !full)) {
    const inputs = [...new Set(order)];
    inputs.slice(0, data.files.length).forEach((input, number) => give(fileIn(input), [data.files[number]]));
    if (data.files.length > inputs.length) notify(`Only ${inputs.length} of the ${data.files.length} files are used.`);
  } else if (order.length) notify("Both photos are there. Drop the file on the one to replace, or click that one.");
}
addEventListener("dragover", (event) => event.dataTransfer.types.includes("Files") && event.preventDefault(), true);
addEventListener("drop", (event) => take(event, event.dataTransfer), true);
addEventListener("paste", (event) => take(event, event.clipboardData), true);

// A click on a photo opens the file dialog, to replace it.
addEventListener("click", ({target}) => {
  if (target.matches?.(".photo-input .image-frame img")) fileIn(target.closest(".photo-input")).click();
});

// Gradio says nothing if the camera cannot be used.
const NO_CAMERA = {
  NotAllowedError: "The browser does not allow this page to use the camera. Allow it in the settings of the browser.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is used by another program.",
};
if (navigator.mediaDevices) {
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = (wanted) => open(wanted).catch((error) => {
    notify(NO_CAMERA[error.name] ?? "The camera cannot be used.");
    throw error;
  });
}

// Hide the browser's broken-image icon: the page shows a preview, or explains in words what is wrong with an upload.
function onImage({target, type}) {
  if (target.tagName === "IMG") target.style.visibility = type === "error" ? "hidden" : "";
}
for (const type of ["error", "load"]) document.addEventListener(type, onImage, true); // a window gets no load events of images

// Ask the server for previews of photos that the browser cannot draw.
function showPreviews(element, trigger, watch) {
  addEventListener("error", ({target}) => target.closest?.("#photos .image-frame") && trigger("select"), true);
  watch("value", () => {
    for (const image of photoInputs().map(photoIn).filter((image) => image?.style.visibility === "hidden")) {
      const preview = [...element.querySelectorAll("img")].find((one) => image.src.includes(one.dataset.upload));
      if (preview) Object.assign(image.dataset, {upload: image.src}) && (image.src = preview.src);
    }
  });
}

// Names that Gradio leaves out, or gives to two inputs.
function nameInputs() {
  for (const button of document.querySelectorAll(":is(.photo-input, .photos-input) :is([aria-dropeffect], [title='common.upload'])")) {
    const label = button.closest(".block").querySelector("[data-testid=block-label]").innerText.trim();
    if (button.ariaLabel === label) continue;
    button.ariaLabel = label;
    if (button.title) button.title = "Add photos";
  }
}

// -- Compare: the answer ----------------------------------------------------------------------------------------------

let chosen = {}; // the faces that the visitor chose, and in which photos
let ask = () => {}; // the server for an answer
let pending = 0; // requests for an answer
let asked = false; // again for the same choice
let lost = ""; // "failed" or "lost" if the server gave no answer
let following = ""; // the state that was scrolled into view, until that is an answer
let last = "";
const hadPhotos = history.state?.photos; // before the page was loaded again

const addressOf = (path) => new URL(`gradio_api/file=${path}`, document.baseURI).href;
// Return the address of an upload, given its image on the page or its value.
function keyOf(photo) {
  if (!photo) return "";
  const source = photo.url ?? photo.src;
  return source.startsWith("data:") ? photo.dataset.upload : new URL(source, document.baseURI).href; // data: a preview
}

// Describe what an answer depends on. The server returns this text with the answer.
function choiceOf(photos, fmr) {
  const faces = chosen.photos === photos.join() ? chosen.faces : [null, null];
  return JSON.stringify({photos, faces, fmr: Number(fmr)});
}

// Add the choice to the inputs of a function of the server.
const choose = (first, second, _, fmr, ...more) => [first, second, choiceOf([first, second].map(keyOf), fmr), fmr, ...more];

// Show an answer only if it is for the present photos, faces and strictness. Otherwise, show what is missing, or that the
// page compares. This runs before the browser paints a change, so an old answer is never painted next to new photos.
function update() {
  nameInputs();
  const compare = document.querySelector("#compare");
  if (!compare || photoInputs().length < 2) return; // they are not drawn yet
  const keys = photoInputs().map(photoIn).map(keyOf);
  const now = choiceOf(keys, compare.querySelector("#strictness input:checked")?.value ?? 0);
  if (now !== last) {
    following = "changed";
    notify(last || !hadPhotos ? "" : "The page was loaded again, so the photos are gone. Add them again.");
    [asked, lost, last] = [false, "", now];
  }

  const forThese = (id) => [...compare.querySelectorAll(`#${id} [data-choice]`)].find((part) => part.dataset.choice === now);
  const [first, second] = keys;
  let state = "comparing";
  if (forThese("answer")) state = "answered";
  else if (!first || !second) state = `missing-${first ? "second" : second ? "first" : "both"}`;
  else if (lost) state = lost;
  const show = (selector, isShown) => compare.querySelectorAll(selector).forEach((part) => part.hidden = !isShown(part));
  show("[data-state]", (card) => card.dataset.state === state);
  show("#states", () => state !== "answered");
  show("#answer", () => state === "answered");
  const samePhotos = compare.querySelector("#compared [data-choice]")?.dataset.choice.startsWith(now.split('"faces"')[0]);
  show("#compared, #among, #repeat", () => first && second && samePhotos && state !== lost);
  show("#strictness", () => first && second && !document.querySelector("#answer :is(.problem, .no-face)"));
  compare.classList.toggle("waiting", state === "comparing");
  for (const button of compare.querySelectorAll("[data-example]"))
    button.ariaPressed = JSON.parse(button.dataset.example).map(addressOf).join() === keys.join();
  if (following && (first && second || state === "answered")) {
    if (following !== state) reveal(inTab("#compare .answer")[0]);
    following = state === "answered" ? "" : state;
  }
  const photos = Boolean(first || second || document.querySelector(".thumbnails figure"));
  if (photos !== Boolean(history.state?.photos)) history.replaceState({...history.state, photos}, "");
}
new MutationObserver(update).observe(document, {subtree: true, childList: true, attributeFilter: ["src", "data-choice"]});
addEventListener("change", ({target}) => target.closest("#strictness") && update());

// Called when a request is sent, and when it has ended. If the page then waits although nothing is pending, ask again.
function send(...inputs) {
  pending++;
  return choose(...inputs);
}
function settle() {
  pending--;
  setTimeout(() => { // Gradio now sends the request that waited for this one
    update();
    if (pending || !document.querySelector("#compare.waiting")) return;
    if (asked) fail();
    else ask();
    asked = true;
  }, 500);
}

function fail(why = "failed") {
  lost = why;
  update();
}

// Find out whether the server is there, if an answer takes long.
setInterval(() => {
  if (!inTab(".answer.comparing").length) return;
  fetch("gradio_api/startup-events").catch(() => (fail("lost"), notify("The server does not answer. Wait, or try again later.")));
}, 4000);

// -- Examples and faces -----------------------------------------------------------------------------------------------

// Keep the photos of the example that is clicked; an event of app.py then fills the inputs with them.
let example = [];
function chooseExample(element, trigger) {
  element.addEventListener("click", ({target}) => {
    const button = target.closest("[data-example]");
    if (!button) return;
    const meta = {_type: "gradio.FileData"};
    example = JSON.parse(button.dataset.example).map(
      (path) => ({path, url: addressOf(path), orig_name: path.split(/[/\\]/).at(-1), meta}),
    );
    trigger("select");
    following = "changed";
    update();
  });
}

// Report the face that the visitor chooses. The faces are then drawn again, so the focus must be restored.
function reportFaces(element, watch, report) {
  let focus = null;
  element.addEventListener("click", ({target}) => {
    const {photo, face} = target.closest("[data-face]")?.dataset ?? {};
    if (face === undefined) return;
    focus = face ? `[data-photo="${photo}"][data-face="${face}"]` : "[data-face]";
    report(Number(photo), face ? Number(face) : null);
  });
  watch("value", () => {
    if (focus) element.querySelector(focus)?.focus({preventScroll: true});
    focus = null;
  });
}

function chooseFaces(element, trigger, watch) {
  ask = () => trigger("select");
  reportFaces(element, watch, (photo, face) => {
    const {photos, faces} = JSON.parse(last);
    if (face) faces[photo] = face;
    chosen = {photos: photos.join(), faces: face ? faces : [null, null]};
    update();
    ask();
  });
  const wipe = (part, percent) => {
    part.style.setProperty("--wipe", `${percent}%`);
    part.querySelector("input").value = percent;
  };
  element.addEventListener("input", ({target}) => wipe(target.closest(".wipe"), target.value));
  const drag = (event) => {
    const crop = event.buttons && event.target.closest(".wipe .crop");
    if (!crop) return;
    const {left, width} = crop.getBoundingClientRect();
    wipe(crop.closest(".wipe"), Math.round(Math.max(0, Math.min(100, 100 * (event.clientX - left) / width))));
  };
  element.addEventListener("pointerdown", drag);
  element.addEventListener("pointermove", drag);
}

// -- Find and Group ---------------------------------------------------------------------------------------------------

let portrait = {}; // the face that the visitor chose in it
let askFind = () => {};
const search = (files, photo) => [files, photo, keyOf(photo) === portrait.key ? portrait.face : null];

function choosePortraitFace(element, trigger, watch) {
  askFind = () => trigger("select");
  reportFaces(element, watch, (_, face) => {
    portrait = {face, key: keyOf(photoIn(element.closest("#find").querySelector(".photo-input")))};
    askFind();
  });
}

// Remove a photo from the list of files, which is hidden. It is found by the key in its address, because the drawn photos
// may be older than the list.
function removePhotos(element) {
  element.addEventListener("click", ({target}) => {
    const key = target.dataset.remove;
    if (!key) return;
    target.closest("figure").remove();
    const files = [...element.closest("#find, #group").querySelectorAll(".photos-input .file")];
    files.find((file) => file.querySelector(`a[href*="${key}"]`))?.querySelector(".label-clear-button").click();
  });
}

// Report that the visitor chooses faces, at most two, or wants to download the photos.
let chosenPair = [];
const comparePair = (found, fmr) => [found, fmr, chosenPair[0] ?? null, chosenPair[1] ?? null];

function onGroup(element, trigger, watch) {
  const choose = (faces) => {
    chosenPair = faces;
    for (const tile of element.querySelectorAll("[data-face]"))
      tile.setAttribute("aria-pressed", faces.includes(Number(tile.dataset.face)));
    trigger("select");
  };
  element.addEventListener("click", ({target}) => {
    const button = target.closest("[data-face], [data-zip]");
    if (button?.matches("[data-zip]")) trigger("download");
    if (!button?.dataset.face) return;
    const face = Number(button.dataset.face);
    const others = chosenPair.filter((other) => other !== face);
    choose(others.length < chosenPair.length ? others : [...chosenPair, face].slice(-2));
  });
  const clear = () => chosenPair.length && choose([]);
  const close = ({target, key}) => (key === "Escape" || target.closest?.("[data-close]")) && clear();
  for (const type of ["click", "keydown"]) addEventListener(type, close);
  watch("value", clear);
}
