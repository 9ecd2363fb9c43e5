// Starts the page.
import { render } from "./vendor/preact.js";
import { html } from "./html.js";
import { App } from "./app.js";
import { signInFromAddress } from "./session.js";
import { listenToKeys } from "./keys.js";

await signInFromAddress();
listenToKeys();
const root = /** @type {HTMLElement} */ (document.getElementById("console"));
render(html`<${App} />`, root);
