//! The figures as a table and as a plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::program::Program;

#[derive(Clone, Copy)]
pub enum Unit {
    MegaBytes,
    Mebibytes,
    Ms,
    Seconds,
    Percent,
}

impl Unit {
    fn shown(self, value: f64) -> String {
        match self {
            Self::MegaBytes => format!("{value:.1} MB"),
            Self::Mebibytes => format!("{value:.1} MiB"),
            Self::Ms => format!("{value:.2} ms"),
            Self::Seconds => format!("{value:.3} s"),
            Self::Percent => format!("{value:.1} %"),
        }
    }
}

struct Row {
    title: String,
    unit: Unit,
    /// In the order of [`Program::ALL`]; nothing where it was not measured.
    cells: [Option<f64>; 3],
    to_reach: Option<f64>,
}

/// What has been measured so far.
pub struct Report {
    /// The machine, the date, and how busy the machine was at the start.
    setting: String,
    rows: Vec<Row>,
}

impl Report {
    pub fn begin() -> Self {
        Self { setting: setting(), rows: Vec::new() }
    }

    /// Adds a row, and prints it.
    pub fn row(&mut self, title: &str, unit: Unit, cells: [Option<f64>; 3], to_reach: Option<f64>) {
        let row = Row { title: title.to_owned(), unit, cells, to_reach };
        println!("{}", row.markdown(&Program::ALL));
        self.rows.push(row);
    }

    /// Writes the table into docs/benchmark.md and the README, between their markers, and the plot beside it.
    ///
    /// # Panics
    ///
    /// When a file cannot be written, or has no markers.
    pub fn write(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let plot = root.join("docs/benchmark.svg");
        fs::write(&plot, self.plot()).unwrap_or_else(|error| panic!("{}: {error}", plot.display()));
        for file in ["docs/benchmark.md", "README.md"] {
            let path = root.join(file);
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
            let (head, rest) = text.split_once("<!-- benchmark -->\n").expect("a place for the table");
            let (_, tail) = rest.split_once("<!-- /benchmark -->").expect("the place has an end");
            let text = format!("{head}<!-- benchmark -->\n{}<!-- /benchmark -->{tail}", self.table());
            fs::write(&path, text).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }

    fn columns(&self) -> impl Iterator<Item = Program> {
        Program::ALL.into_iter().filter(|program| self.rows.iter().any(|row| row.cells[*program as usize].is_some()))
    }

    fn table(&self) -> String {
        let columns: Vec<_> = self.columns().collect();
        let others = || columns.iter().filter(|program| **program != Program::Ours);
        let names: String = columns.iter().map(|program| format!(" {} |", program.name())).collect();
        let ratios: String = others().map(|program| format!(" as a share of {} |", program.name())).collect();
        let rule = "| --- ".repeat(columns.len() + others().count() + 3);
        let rows: String = self.rows.iter().map(|row| row.markdown(&columns) + "\n").collect();
        format!("{}\n\n| |{names}{ratios} to reach | |\n{rule}|\n{rows}", self.setting)
    }

    /// A bar for each program in each row, as long as its share of the longest in the row.
    fn plot(&self) -> String {
        const COLOURS: [&str; 3] = ["#2a6fbb", "#c7762b", "#8a8a8a"];
        const LEFT: f64 = 430.0;
        const WIDTH: f64 = 300.0;
        const BAR: f64 = 14.0;
        let mut shapes = String::new();
        let mut y = 10.0;
        for program in self.columns() {
            let colour = COLOURS[program as usize];
            writeln!(shapes, r#"<rect x="{LEFT}" y="{y}" width="14" height="10" fill="{colour}"/>"#).expect("text");
            writeln!(shapes, r#"<text x="{}" y="{}">{}</text>"#, LEFT + 20.0, y + 10.0, program.name()).expect("text");
            y += 18.0;
        }
        for row in &self.rows {
            y += 8.0;
            writeln!(shapes, r#"<text x="10" y="{}">{}</text>"#, y + 11.0, row.title).expect("text");
            let longest = row.cells.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
            for program in self.columns() {
                let Some(value) = row.cells[program as usize] else { continue };
                let (width, colour) = ((value.max(0.0) / longest * WIDTH).max(1.0), COLOURS[program as usize]);
                let shown = row.unit.shown(value);
                writeln!(
                    shapes,
                    r#"<rect x="{LEFT}" y="{y}" width="{width:.1}" height="{}" fill="{colour}"/><text x="{:.1}" y="{}">{shown}</text>"#,
                    BAR - 2.0,
                    LEFT + width + 6.0,
                    y + 11.0
                )
                .expect("text");
                y += BAR;
            }
        }
        let height = y + 10.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 {height}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"860\" height=\"{height}\" fill=\"white\"/>\n{shapes}</svg>\n"
        )
    }
}

impl Row {
    /// What was measured of these programs, and ours as a ratio to each other one in the same run.
    fn markdown(&self, columns: &[Program]) -> String {
        let shown = |value: Option<f64>| value.map_or("–".to_owned(), |value| self.unit.shown(value));
        let ratio = |other: Option<f64>| match (self.cells[0], other) {
            (Some(ours), Some(other)) if other > 0.0 => format!(" {:.2} |", ours / other),
            _ => " – |".to_owned(),
        };
        let cells = columns.iter().map(|program| format!(" {} |", shown(self.cells[*program as usize])));
        let others = columns.iter().filter(|program| **program != Program::Ours);
        let ratios = others.map(|program| ratio(self.cells[*program as usize]));
        let cells: String = cells.chain(ratios).collect();
        let verdict = match (self.cells[0], self.to_reach) {
            (Some(value), Some(to_reach)) if value <= to_reach => "reached",
            (Some(_), Some(_)) => "**not reached**",
            _ => "",
        };
        format!("| {} |{cells} {} | {verdict} |", self.title, shown(self.to_reach))
    }
}

fn setting() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let date = Command::new("date").args(["--utc", "+%F"]).output().expect("date").stdout;
    format!(
        "{}, {cores} cores of {model}, Linux {}, load average at the start: {}. kube-apiserver and etcd are on the same \
         machine, TLS and JSON on loopback.",
        String::from_utf8_lossy(&date).trim(),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?"),
    )
}
