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

  let state = "comparing";
  if (failed) state = "failed";
  else if (!waiting) {
    const [first, second] = keys.map((key) => key === "-");
    if (answer) state = "answered";
    else if (first || second) state = `missing-${first && second ? "both" : first ? "first" : "second"}`;
  }
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

// Report the chosen faces, at most two, or that the visitor wants to download the photos.
function onGroup(element, trigger, watch) {
  let chosen = [];
  element.addEventListener("click", ({target}) => {
    const button = target.closest("[data-face], [data-zip]");
    if (button?.matches("[data-zip]")) trigger("download");
    if (!button?.dataset.face) return;
    const face = Number(button.dataset.face);
    chosen = chosen.includes(face) ? chosen.filter((other) => other !== face) : [...chosen, face].slice(-2);
    for (const tile of element.querySelectorAll("[data-face]"))
      tile.setAttribute("aria-pressed", chosen.includes(Number(tile.dataset.face)));
    trigger("select", {faces: chosen});
  });
  watch("value", () => chosen = []);
}
