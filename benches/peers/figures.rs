//! Numbers: what is read of a process, and what is made of many readings.

use std::fs;

/// The processor time that a process has used in all its threads, in milliseconds. The kernel counts in 10 ms.
pub fn cpu_ms(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in brackets");
    let ticks = |index: usize| fields.split(' ').nth(index).and_then(|field| field.parse::<f64>().ok()).expect("ticks");
    // Fields 14 and 15, counted from 1 and from the PID (`proc_pid_stat(5)`).
    (ticks(11) + ticks(12)) * 10.0
}

/// The value that this share of the values is not above.
///
/// # Panics
///
/// When there is none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "few values"
    )]
    let at = ((values.len() - 1) as f64 * share).round() as usize;
    values[at]
}
