/**
 * Ends what a test run has started, however the run itself ends: a small shell process of its own
 * session holds the list and acts when its input closes, which also a kill -9 of the run does.
 */
import { type ChildProcess, spawn } from "node:child_process";

/**
 * The work is done by a child of the child, which Bun's own way of ending what it started
 * (`--no-orphans`) leaves alone when Bun is killed. Lines in: `pid N`, `free N` (has ended),
 * `folder PATH`, `project NAME FILE` (of compose).
 */
const guardScript = `
trap '' INT TERM HUP
exec 3<&0
(
pids=
folders=
projects=
while IFS= read -r line; do
  value=\${line#* }
  case $line in
    pid\\ *) pids="$pids $value" ;;
    free\\ *)
      kept=
      for pid in $pids; do [ "$pid" = "$value" ] || kept="$kept $pid"; done
      pids=$kept ;;
    folder\\ *) folders="$folders$value
" ;;
    project\\ *) projects="$projects$value
" ;;
  esac
done
for pid in $pids; do kill -s KILL -- "-$pid"; done
printf %s "$projects" | while read -r name file; do
  docker compose -p "$name" -f "$file" down -v -t 0
done
[ -z "$pids$folders" ] || sleep 0.2
printf %s "$folders" | while IFS= read -r folder; do rm -rf "$folder"; done
) <&3 3<&- &
exec 3<&-
wait
`;

let guard: ChildProcess | null = null;

function tell(line: string): void {
  if (guard === null) {
    guard = spawn("sh", ["-c", guardScript], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      cwd: "/",
    });
    guard.unref();
  }
  guard.stdin?.write(`${line}\n`);
}

/** The process group that this process leads is killed when the run ends. */
export function guardProcess(pid: number): void {
  tell(`pid ${pid}`);
}

/** Takes it back: the process has ended, and its number may be given to another. */
export function releaseProcess(pid: number): void {
  tell(`free ${pid}`);
}

/** The folder is removed when the run ends. */
export function guardFolder(path: string): void {
  tell(`folder ${path}`);
}

/** The containers of a compose project are removed when the run ends. */
export function guardProject(name: string, file: string): void {
  tell(`project ${name} ${file}`);
}
