// Builds the page into the package, or into --outdir; with --tests, bundles and runs the unit tests.
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import makeWabt from "wabt";

const here = dirname(fileURLToPath(import.meta.url));
const wabt = await makeWabt();

const wat = {
  name: "wat",
  setup({ onLoad }) {
    onLoad({ filter: /\.wat$/ }, ({ path }) => {
      const module = wabt.parseWat(path, readFileSync(path, "utf8"), { simd: true });
      return { contents: module.toBinary({}).buffer, loader: "binary" };
    });
  },
};

const common = {
  absWorkingDir: here,
  bundle: true,
  plugins: [wat],
  target: "es2022",
  logLevel: "warning",
};

/** Licences of all packages that have files in the bundle, in order of their names. */
function licences(inputs) {
  const names = inputs.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]);
  return [...new Set(names.filter(Boolean))].sort().map((name) => {
    const folder = join(here, "node_modules", name);
    const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file
      ? readFileSync(join(folder, file), "utf8").trim()
      : `Licence: ${about.license}`;
    return `${name} ${about.version} (${about.license})\n\n${text}\n`;
  });
}

async function page(outdir) {
  rmSync(outdir, { recursive: true, force: true });
  mkdirSync(outdir, { recursive: true });
  const { metafile } = await build({
    ...common,
    entryPoints: { explorer: "src/main.ts", worker: "src/worker.ts" },
    outdir,
    format: "iife",
    legalComments: "none",
    minify: true,
    metafile: true,
  });
  copyFileSync(join(here, "page", "index.html"), join(outdir, "index.html"));
  const rule = `\n${"-".repeat(72)}\n\n`;
  const text = `Packages in explorer.js and worker.js, and their licences.\n${rule}`;
  const used = Object.values(metafile.outputs).flatMap(({ inputs }) =>
    Object.entries(inputs)
      .filter(([, { bytesInOutput }]) => bytesInOutput)
      .map(([path]) => path),
  );
  writeFileSync(join(outdir, "LICENSES.txt"), text + licences(used).join(rule));
}

async function tests() {
  const folder = mkdtempSync(join(tmpdir(), "explorer-tests-"));
  const names = readdirSync(join(here, "tests")).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...common,
    entryPoints: names.map((name) => join("tests", name)),
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    format: "esm",
    platform: "node",
  });
  const files = names.map((name) => join(folder, name.replace(/ts$/, "mjs")));
  const { status } = spawnSync(process.execPath, ["--test", ...files], { stdio: "inherit" });
  rmSync(folder, { recursive: true });
  process.exitCode = status;
}

const [option, value] = process.argv.slice(2);
if (option === "--tests") await tests();
else
  await page(resolve(option === "--outdir" ? value : join(here, "../src/rs_embed/explorer/page")));
