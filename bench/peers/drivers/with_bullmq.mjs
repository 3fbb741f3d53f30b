/**
 * BullMQ, on Node: `new Worker(queue, processor)`, the default options (https://docs.bullmq.io); ioredis, its default.
 *
 * Many by `queue.addBulk`. Results by `job.waitUntilFinished(queueEvents)`. CPU: a sandboxed processor, which its
 * documentation recommends for what computes, with one process for each job at once. The verbs are those of drive.py.
 */

import { closeSync, openSync, readFileSync, statSync, writeSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const HOME = process.env.PEERS_MODULES;
const require = createRequire(`${HOME}/`);
const STAMPS = process.env.PEERS_STAMPS ?? "/dev/null";
const CONCURRENCY = Number(process.env.PEERS_CONCURRENCY) || undefined;
const NAP_MS = 100;
const BURN_US = 5_000;
const ENDED = 1n << 63n;
const QUEUE = "peers";
const PATIENCE_MS = 20_000;

const descriptor = openSync(STAMPS, "a");

function stamp(number, ended = 0n) {
  const record = Buffer.allocUnsafe(16);
  record.writeBigUInt64LE(BigInt(number) | ended, 0);
  record.writeBigUInt64LE(process.hrtime.bigint(), 8);
  writeSync(descriptor, record);
}

/** The CPU time of the process: nothing else computes in it. */
function burned() {
  const { user, system } = process.cpuUsage();
  return user + system;
}

const bodies = {
  noop: async (number) => stamp(number),
  echo: async (number) => {
    stamp(number);
    return number;
  },
  nap: async (number) => {
    stamp(number);
    await sleep(NAP_MS);
    stamp(number, ENDED);
  },
  burn: async (number) => {
    stamp(number);
    const until = burned() + BURN_US;
    while (burned() < until) for (let i = 0; i < 2_000; i++);
    stamp(number, ENDED);
  },
};

/** What a sandboxed process runs. */
export default async function processor(job) {
  return bodies[job.name](job.data.number);
}

function connection() {
  const { hostname, port } = new URL(process.env.PEERS_URL);
  return { host: hostname, port: Number(port) };
}

function version(name) {
  return JSON.parse(readFileSync(`${HOME}/node_modules/${name}/package.json`)).version;
}

function describe() {
  return {
    versions: { bullmq: version("bullmq"), ioredis: version("ioredis") },
    runtime: `Node ${process.versions.node}`,
    ways: ["awaited", "request"],
    notes: {
      cpu: "a sandboxed processor, two processes",
      kill: "a job whose lock has run out (`lockDuration`, 30 s) goes back once; that is looked for every 30 s",
    },
    without: {},
  };
}

function work(body) {
  const { Worker } = require("bullmq");
  const options = { connection: connection(), ...(CONCURRENCY && { concurrency: CONCURRENCY }) };
  const worker = new Worker(QUEUE, body === "burn" ? fileURLToPath(import.meta.url) : processor, options);
  worker.on("error", (error) => console.error(error));
}

class Producer {
  async connect() {
    const { Queue, QueueEvents } = require("bullmq");
    this.queue = new Queue(QUEUE, { connection: connection() });
    this.events = new QueueEvents(QUEUE, { connection: connection() });
    await Promise.all([this.queue.waitUntilReady(), this.events.waitUntilReady()]);
    return {};
  }

  async many({ body, first, count }) {
    return timed(() =>
      this.queue.addBulk(Array.from({ length: count }, (_, at) => ({ name: body, data: { number: first + at } }))),
    );
  }

  async awaited({ body, first, count }) {
    return timed(async () => {
      for (let number = first; number < first + count; number++) await this.queue.add(body, { number });
    });
  }

  async body_latency({ first, samples, budget_s }) {
    return sampled(first, samples, budget_s, async (number, started) => {
      const size = statSync(STAMPS).size;
      await this.queue.add("noop", { number });
      while (statSync(STAMPS).size === size) {
        await sleep(0);
        if (Number(process.hrtime.bigint() - started) > PATIENCE_MS * 1e6) throw new Error("a task did not run");
      }
      return [];
    });
  }

  async result_latency({ first, samples, budget_s }) {
    return sampled(first, samples, budget_s, async (number) => {
      const job = await this.queue.add("echo", { number });
      const value = await job.waitUntilFinished(this.events, PATIENCE_MS);
      if (value !== number) throw new Error(`the result of task ${number} is ${value}`);
      return [Number(process.hrtime.bigint())];
    });
  }
}

async function sampled(first, samples, budget_s, one) {
  const sent = [];
  const began = performance.now();
  let pause_ms = 0;
  for (let number = first; number < first + samples; number++) {
    await sleep(2 + Math.random() * pause_ms);
    const started = process.hrtime.bigint();
    sent.push([number, Number(started), ...(await one(number, started))]);
    pause_ms = Number(process.hrtime.bigint() - started) / 1e6;
    if (performance.now() - began > budget_s * 1_000) break;
  }
  return { sent };
}

async function timed(run) {
  const cpu = burned();
  const at = performance.now();
  await run();
  return { seconds: (performance.now() - at) / 1e3, cpu_seconds: (burned() - cpu) / 1e6 };
}

async function produce() {
  const producer = new Producer();
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...step } = JSON.parse(line);
    console.log(JSON.stringify(await producer[name](step)));
  }
  closeSync(descriptor);
  process.exit(0);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [verb, body] = process.argv.slice(2);
  if (verb === "describe") console.log(JSON.stringify(describe()));
  else if (verb === "worker") work(body);
  else await produce();
}
