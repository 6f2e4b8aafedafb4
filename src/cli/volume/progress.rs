//! Progress on a terminal; anywhere else, and with --json, nothing is drawn.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Something that takes a while, and nobody knows how long.
pub(in crate::cli) fn working(what: &'static str, json: bool) -> ProgressBar {
    if !is_drawn(json) {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// So many bytes to be read.
pub(super) fn reading(bytes: u64, json: bool) -> ProgressBar {
    bar(
        bytes,
        json,
        "{bar:32} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left",
    )
}

/// So many regions to be looked at.
pub(super) fn looking(regions: u64, json: bool) -> ProgressBar {
    bar(regions, json, "{bar:32} {pos}/{len} regions  {eta} left")
}

/// Viewers to leave, of whom the message tells.
pub(in crate::cli) fn leaving(json: bool) -> ProgressBar {
    bar(0, json, "{bar:32} {msg}")
}

fn bar(length: u64, json: bool, template: &str) -> ProgressBar {
    if !is_drawn(json) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).expect("the templates are written here");
    ProgressBar::new(length).with_style(style.progress_chars("=> "))
}

/// Whether somebody sees a bar.
pub(in crate::cli) fn is_drawn(json: bool) -> bool {
    !json && io::stderr().is_terminal()
}
