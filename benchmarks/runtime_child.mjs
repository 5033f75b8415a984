// Run every ONNX file of a directory in onnxruntime-web; part of benchmarks.runtimes.
import fs from "node:fs";
import path from "node:path";
import * as ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
ort.env.logLevel = "fatal";
const directory = process.argv[2];
const kinds = { "<f4": ["float32", Float32Array], "|u1": ["uint8", Uint8Array] };

function load(file) {
  const bytes = fs.readFileSync(path.join(directory, file));
  const length = bytes.readUInt16LE(8);
  const head = bytes.toString("latin1", 10, 10 + length);
  const [name, kind] = kinds[/'descr': '([^']+)'/.exec(head)[1]];
  const data = new Uint8Array(bytes.subarray(10 + length)).buffer;
  return { name, values: new kind(data), shape: /\(([^)]*)\)/.exec(head)[1].split(",").map(Number) };
}

function save(file, values, shape) {
  let head = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`;
  head += " ".repeat(63 - ((10 + head.length) % 64)) + "\n";
  const start = Buffer.concat([Buffer.from([0x93]), Buffer.from("NUMPY"), Buffer.from([1, 0]), Buffer.alloc(2)]);
  start.writeUInt16LE(head.length, 8);
  fs.writeFileSync(path.join(directory, file), Buffer.concat([start, Buffer.from(head), Buffer.from(values.buffer)]));
}

const errors = {};
for (const file of fs.readdirSync(directory).filter((each) => each.endsWith(".onnx"))) {
  try {
    const images = load(file.includes("uint8") ? "uint8.npy" : "float32.npy");
    const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(path.join(directory, file))));
    const size = images.values.length / images.shape[0];
    const logits = [];
    for (const [first, last] of [[0, 1], [1, images.shape[0]]]) {
      const part = images.values.slice(first * size, last * size);
      const batch = new ort.Tensor(images.name, part, [last - first, ...images.shape.slice(1)]);
      logits.push(...(await session.run({ [session.inputNames[0]]: batch }))[session.outputNames[0]].data);
    }
    save(`${file}.npy`, Float32Array.from(logits), [images.shape[0], logits.length / images.shape[0]]);
  } catch (error) {
    errors[file] = String(error).split("\n")[0];
  }
}
console.log(JSON.stringify(errors));
