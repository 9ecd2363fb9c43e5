// Beside the page, not in it: its Content-Security-Policy lets no inline script run.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  // Asks nobody outside whether the document is valid.
  validatorUrl: null,
});
