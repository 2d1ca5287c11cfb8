/** The process as Prometheus clients describe it, and what Node.js knows of itself. Read at scrape time, nothing runs in between. */
import { readdirSync, readFileSync } from 'node:fs';
import { Gauge, Counter, type Registry } from 'prom-client';

const pageSize = 4096;

/** Adds `process_*` and `nodejs_*` to the registry. */
export function registerProcessMetrics(registry: Registry): void {
  const gauge = (name: string, help: string, read: () => number): void => {
    const collect = (): void => metric.set(read());
    const metric = new Gauge({ name, help, registers: [], collect });
    registry.registerMetric(metric);
  };
  const collectCPU = (): void => {
    const { user, system } = process.cpuUsage();
    cpu.reset();
    cpu.inc((user + system) / 1e6);
  };
  const cpu = new Counter({
    name: 'process_cpu_seconds_total',
    help: 'Total user and system CPU time spent in seconds.',
    registers: [registry],
    collect: collectCPU,
  });
  const startTime = Date.now() / 1000 - process.uptime();
  gauge(
    'process_start_time_seconds',
    'Start time of the process since unix epoch in seconds.',
    () => startTime,
  );
  gauge('process_resident_memory_bytes', 'Resident memory size in bytes.', () => process.memoryUsage.rss());
  gauge('process_virtual_memory_bytes', 'Virtual memory size in bytes.', virtualMemory);
  gauge('process_open_fds', 'Number of open file descriptors.', () => readdirSync('/proc/self/fd').length);
  gauge('process_max_fds', 'Maximum number of open file descriptors.', maxOpenFiles);
  const memory = (name: string, help: string, key: keyof NodeJS.MemoryUsage): void =>
    gauge(name, help, () => process.memoryUsage()[key]);
  memory('nodejs_heap_size_total_bytes', 'Process heap size from Node.js in bytes.', 'heapTotal');
  memory('nodejs_heap_size_used_bytes', 'Process heap size used from Node.js in bytes.', 'heapUsed');
  memory('nodejs_external_memory_bytes', 'Node.js external memory size in bytes.', 'external');
  const [major = '', minor = '', patch = ''] = process.versions.node.split('.');
  const version = new Gauge({
    name: 'nodejs_version_info',
    help: 'Node.js version info.',
    labelNames: ['version', 'major', 'minor', 'patch'],
    registers: [registry],
  });
  version.labels(process.version, major, minor, patch).set(1);
}

/** proc(5): the first number of statm is the size in pages. */
function virtualMemory(): number {
  return Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[0]) * pageSize;
}

function maxOpenFiles(): number {
  const match = /^Max open files\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
  return match?.[1] === 'unlimited' || match === null ? -1 : Number(match[1]);
}
