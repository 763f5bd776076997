//! `make bench`: every figure that the README promises, against the Go program of the same name where there is one, and
//! against a raw watch, in one run on one machine. Writes docs/benchmark.md, docs/benchmark.svg and the README's table.
//!
//! With the argument `scale` it measures what docs/scale.md starts from instead, and prints that.
//!
//! The programs take turns, so that what else the machine does hits all of them. Of several runs the median counts.

#[path = "../../tests/harness"]
#[expect(dead_code, reason = "much of it is for the tests only")]
mod harness {
    pub mod access;
    pub mod certificates;
    pub mod cluster;
    pub mod etcd;
    pub mod namespace;
    pub mod object;
    pub mod poller;
    pub mod server;
    pub mod usage;
    pub mod wait;
    pub mod workspace;
}

mod figures;
mod program;
mod report;
mod scale;
mod workloads;

use std::env::var_os;
use std::path::PathBuf;

use figures::quantile;
use harness::access::Access;
use harness::cluster::{ApiServer, Cluster};
use harness::namespace::Namespace;
use harness::object::{config_map, labelled};
use program::{Program, Programs};
use report::{Report, Unit};
use workloads::{Scene, fill, name, worst};

/// How often each figure is measured, but for what is long.
const RUNS: usize = 3;
const STARTS: usize = 7;

fn main() {
    let ours = var_os("CONFIGBUMP_RELEASED").map(PathBuf::from);
    let ours = ours.expect("CONFIGBUMP_RELEASED names the executable that is measured; `make bench` sets it");
    let programs = Programs { ours, go: var_os("CONFIGBUMP_PEER").filter(|path| !path.is_empty()).map(PathBuf::from) };
    if std::env::args().any(|arg| arg == "scale") {
        return harness::wait::run(scale::run(&programs));
    }
    let mut bench = Bench { programs, report: Report::begin() };
    harness::wait::run(bench.run());
    bench.report.write();
}

struct Bench {
    programs: Programs,
    report: Report,
}

impl Bench {
    async fn run(&mut self) {
        self.size();
        self.few_objects().await;
        self.large_objects().await;
        self.worst_object().await;
        for objects in [100, 1_000, 10_000] {
            let namespace = Namespace::new().await;
            fill(&namespace, objects, 1024).await;
            self.updates(&namespace, objects).await;
            if objects == 1_000 {
                self.starts(&namespace, objects);
                self.unrelated(&namespace, objects).await;
            }
        }
        self.torn_reads().await;
    }

    fn scene<'a>(&'a self, namespace: &'a Namespace, objects: usize) -> Scene<'a> {
        Scene { programs: &self.programs, access: access(), namespace, objects }
    }

    fn size(&mut self) {
        let file =
            |program| self.programs.file(program).map(|path| std::fs::metadata(path).expect("an executable").len());
        #[expect(clippy::cast_precision_loss, reason = "an executable is smaller than that")]
        let cells = Program::ALL.map(|program| file(program).map(|bytes| bytes as f64 / 1e6));
        self.report.row("executable", Unit::MegaBytes, cells, Some(6.5));
    }

    async fn few_objects(&mut self) {
        let namespace = Namespace::new().await;
        fill(&namespace, 10, 1024).await;
        let scene = self.scene(&namespace, 10);
        let mut resident = Samples::default();
        for _ in 0..RUNS {
            for program in self.programs.present() {
                resident.add(program, scene.memory(program, 1024).await.0);
            }
        }
        self.report.row("resident memory, 10 maps", Unit::Mebibytes, resident.medians(), Some(6.0));
    }

    async fn large_objects(&mut self) {
        const BYTES: usize = 500_000;
        let namespace = Namespace::new().await;
        fill(&namespace, 200, BYTES).await;
        let paging = Cluster::shared().api_server("paging", &["--feature-gates=WatchList=false"]).await;
        for (server, access) in [("", access()), (", server without watch-list", paging.admin_access())] {
            let scene = Scene { access, ..self.scene(&namespace, 200) };
            let (mut resident, mut peak) = (Samples::default(), Samples::default());
            for _ in 0..RUNS {
                for program in self.programs.present() {
                    // Without watch-list, curl has no list that a watch follows.
                    if server.is_empty() || program != Program::Floor {
                        let (now, most) = scene.memory(program, BYTES).await;
                        resident.add(program, now);
                        peak.add(program, most);
                    }
                }
            }
            let title = |what| format!("200 maps of 500 kB{server}: {what}");
            self.report.row(&title("resident"), Unit::Mebibytes, resident.medians(), Some(6.0));
            self.report.row(&title("peak"), Unit::Mebibytes, peak.medians(), Some(8.0));
        }
        namespace.delete_all(&(0..200).map(|number| config_map(&name(number), [])).collect::<Vec<_>>()).await;
    }

    async fn worst_object(&mut self) {
        let namespace = Namespace::new().await;
        namespace.create(&worst("worst00000")).await;
        let scene = self.scene(&namespace, 1);
        let mut peak = Samples::default();
        for _ in 0..RUNS {
            for program in self.programs.present() {
                peak.add(program, scene.worst_object(program).await);
            }
        }
        self.report.row("worst legal object (6.2 MB of JSON): peak", Unit::Mebibytes, peak.medians(), Some(8.0));
    }

    async fn updates(&mut self, namespace: &Namespace, objects: usize) {
        let scene = self.scene(namespace, objects);
        let (mut later, mut cpu, mut resident) = (Samples::default(), Samples::default(), Samples::default());
        for _ in 0..RUNS {
            for program in self.programs.present() {
                let updates = scene.updates(program).await;
                updates.later_ms.into_iter().for_each(|ms| later.add(program, ms));
                cpu.add(program, updates.cpu_ms);
                resident.add(program, updates.resident_mib);
            }
        }
        let title = |what| format!("{what}, {objects} maps");
        let to_reach = (objects == 1_000).then_some(0.3);
        self.report.row(&title("update on disk after the watch event, median"), Unit::Ms, later.medians(), to_reach);
        self.report.row(&title("the same, 99th percentile"), Unit::Ms, later.quantiles(0.99), None);
        self.report.row(&title("CPU an update"), Unit::Ms, cpu.medians(), Some(0.3));
        self.report.row(&title("resident memory"), Unit::Mebibytes, resident.medians(), None);
    }

    fn starts(&mut self, namespace: &Namespace, objects: usize) {
        let scene = self.scene(namespace, objects);
        let (mut start, mut stream) = (Samples::default(), Samples::default());
        for _ in 0..STARTS {
            for program in self.programs.present() {
                start.add(program, scene.first_sync(program));
            }
            stream.add(Program::Floor, scene.first_stream());
        }
        let start = start.medians();
        let to_reach = start[Program::Floor as usize].map(|curl| curl * 1.5);
        self.report.row("start to 1,000 files (curl: the list)", Unit::Seconds, start, to_reach);
        let streamed =
            [start[Program::Ours as usize], start[Program::Go as usize], stream.medians()[Program::Floor as usize]];
        self.report.row("the same (curl: the stream that becomes a watch)", Unit::Seconds, streamed, None);
    }

    async fn unrelated(&mut self, namespace: &Namespace, objects: usize) {
        namespace.create(&labelled(config_map("unrelated", [("unrelated", "")]), [])).await;
        let scene = self.scene(namespace, objects);
        let mut cpu = Samples::default();
        for program in self.programs.present() {
            cpu.add(program, scene.unrelated(program, 1_000).await);
        }
        // The kernel counts in 10 ms, and one update of a map that is followed ends it.
        self.report.row("CPU of 1,000 changes of other maps", Unit::Ms, cpu.medians(), Some(10.0));
    }

    async fn torn_reads(&mut self) {
        const BYTES: usize = 700_000;
        let namespace = Namespace::new().await;
        let name = name(0);
        namespace.create(&config_map(&name, [(&name, &workloads::value(&name, BYTES))])).await;
        let scene = self.scene(&namespace, 1);
        let mut torn = Samples::default();
        for program in self.programs.present().filter(|program| *program != Program::Floor) {
            let (reads, bad) = scene.torn_reads(program, 200, BYTES).await;
            #[expect(clippy::cast_precision_loss, reason = "some thousand reads")]
            torn.add(program, bad as f64 * 100.0 / reads as f64);
        }
        self.report.row("torn reads of a 700 kB file under 200 updates", Unit::Percent, torn.medians(), Some(0.0));
    }
}

fn access() -> Access {
    ApiServer::shared().admin_access()
}

/// Measured values by program, in the order of [`Program::ALL`].
#[derive(Default)]
struct Samples([Vec<f64>; 3]);

impl Samples {
    fn add(&mut self, program: Program, value: f64) {
        self.0[program as usize].push(value);
    }

    fn medians(&self) -> [Option<f64>; 3] {
        self.quantiles(0.5)
    }

    fn quantiles(&self, share: f64) -> [Option<f64>; 3] {
        self.0.each_ref().map(|values| (!values.is_empty()).then(|| quantile(values, share)))
    }
}
