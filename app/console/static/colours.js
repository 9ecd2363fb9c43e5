// Colours of the tokens as a canvas takes them.

/**
 * Resolve a token, such as `--bad`, as it is where an element stands: light or dark.
 * @param {HTMLElement} element
 * @returns {(name: string) => string}
 */
export function coloursOf(element) {
  /** @type {Map<string, string>} */
  const known = new Map();
  const probe = document.createElement("span");
  probe.hidden = true;
  element.after(probe);
  const colour = (/** @type {string} */ name) => {
    let found = known.get(name);
    if (found === undefined) {
      probe.style.color = `var(${name})`;
      found = getComputedStyle(probe).color;
      known.set(name, found);
    }
    return found;
  };
  // Read at once: the probe goes.
  for (const name of TOKENS) colour(name);
  probe.remove();
  return colour;
}

const TOKENS = [
  "--text-2", "--line", "--accent", "--bg-hover", "--warn", "--bad",
  "--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6",
];
