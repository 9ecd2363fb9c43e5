// Uploads a file with tus-js-client: node upload.mjs PACKAGE '{"endpoint": ..., "key": ..., ...}'
//
// Says on stdout, one JSON object a line, how far it is, and how it ends. With `stopAt`, it
// aborts after so many bytes, as a page that is left, and then goes on like one that is
// opened again.
import { createReadStream, statSync } from "node:fs";
import { createRequire } from "node:module";
import { PassThrough } from "node:stream";

const require = createRequire(import.meta.url);
const tus = require(process.argv[2]);
const given = JSON.parse(process.argv[3]);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");

function upload(options) {
  return new Promise((resolve, reject) => {
    const file = createReadStream(given.file);
    // Of a stream that is no file's, nobody knows the length.
    const started = new tus.Upload(given.deferred ? file.pipe(new PassThrough()) : file, {
      endpoint: given.endpoint,
      uploadUrl: options.url ?? null,
      headers: { Authorization: `Bearer ${given.key}`, ...given.headers },
      metadata: { path: given.path, filetype: "application/octet-stream" },
      uploadSize: given.deferred ? null : statSync(given.file).size,
      uploadLengthDeferred: given.deferred ?? false,
      uploadDataDuringCreation: given.withCreation ?? false,
      overridePatchMethod: given.override ?? false,
      chunkSize: given.chunk ?? 1024 * 1024,
      retryDelays: given.retryDelays ?? [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000],
      onProgress: (sent) => say({ sent }),
      onChunkComplete: (_size, accepted) => {
        say({ accepted });
        if (options.stopAt && accepted >= options.stopAt) {
          started.abort(given.terminate ?? false).then(() => resolve(started.url), reject);
        }
      },
      onSuccess: () => resolve(started.url),
      onError: (error) =>
        reject({ status: error.originalResponse?.getStatus() ?? 0, message: error.message }),
    });
    started.start();
  });
}

try {
  let url = await upload({ stopAt: given.stopAt });
  if (given.stopAt && !given.terminate) {
    say({ stopped: url });
    url = await upload({ url });
  }
  say({ done: url });
} catch (error) {
  say({ failed: error.status, message: error.message });
}
