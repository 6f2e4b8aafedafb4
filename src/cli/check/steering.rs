//! Of a configuration: which viewers which appliances are for, and whom they are sent to. In words
//! and as JSON; nothing where nothing of it is written.

use serde_json::{Value, json};

use crate::config::Config;
use crate::config::units::duration_text;
use crate::control::routes::{Format, RouteFile};

/// What `routes` says.
pub(super) fn routes(config: &Config) -> Vec<(&'static str, String)> {
    let plan = &config.routes.plan;
    let mut lines: Vec<_> = plan.files.iter().map(|file| (kind(file), of_file(file))).collect();
    lines.extend(plan.databases.iter().map(|file| ("database", file.display().to_string())));
    if !lines.is_empty() {
        lines.push(("looked at", format!("every {}", duration_text(config.routes.reread))));
        lines.push(("held", format!("{} when a file is gone", duration_text(plan.hold))));
    }
    lines
}

fn kind(file: &RouteFile) -> &'static str {
    match file.format {
        Format::Prefixes => "prefixes",
        Format::CoverageZones { .. } => "coverage zones",
        Format::Mrt { .. } => "mrt",
    }
}

fn of_file(file: &RouteFile) -> String {
    let path = file.path.display();
    match &file.format {
        Format::Mrt { boxes } => format!("{path}  for {}", boxes.join(", ")),
        Format::Prefixes | Format::CoverageZones { .. } => path.to_string(),
    }
}

/// What `steering` says.
pub(super) fn steering(config: &Config) -> Vec<(&'static str, String)> {
    let (settings, appliances) = (&config.steering.settings, &config.steering.appliances);
    let is_asked = config.listeners.iter().any(|one| one.kind.name().starts_with("steering"));
    if appliances.is_empty() && !is_asked {
        return Vec::new();
    }
    let names: Vec<&str> = appliances.iter().map(|one| one.name()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let secret = if settings.secret.is_some() { "of a file" } else { "made at each start" };
    let seconds = |seconds| duration_text(std::time::Duration::from_secs(seconds));
    let ttl = format!(
        "{}, {} while one leaves or seems ill",
        seconds(settings.pace.steady_seconds),
        seconds(settings.pace.unsettled_seconds)
    );
    let mut lines = vec![("appliances", names), ("ttl", ttl), ("secret", secret.to_owned())];
    lines.extend(settings.url.clone().map(|url| ("url", url)));
    let ended: Vec<&str> = settings.ended.iter().map(String::as_str).collect();
    lines.extend((!ended.is_empty()).then(|| ("off", ended.join(", "))));
    lines
}

/// Both, for programs.
pub(super) fn as_json(config: &Config) -> (Value, Value) {
    let (plan, settings) = (&config.routes.plan, &config.steering.settings);
    let file = |file: &RouteFile| {
        let boxes = match &file.format {
            Format::Mrt { boxes } => Some(boxes),
            Format::Prefixes | Format::CoverageZones { .. } => None,
        };
        let names = boxes.map(|boxes| boxes.iter().map(|name| &**name).collect::<Vec<&str>>());
        json!({ "path": file.path.display().to_string(), "format": kind(file), "boxes": names })
    };
    let databases = plan.databases.iter().map(|file| file.display().to_string());
    let millis = |duration: std::time::Duration| duration.as_millis() as u64;
    let routes = json!({
        "files": plan.files.iter().map(file).collect::<Vec<_>>(),
        "databases": databases.collect::<Vec<_>>(),
        "reread": millis(config.routes.reread),
        "hold": millis(plan.hold),
    });
    let steering = json!({
        "url": settings.url,
        "spread": settings.spread,
        "ttl": {
            "steady": settings.pace.steady_seconds * 1_000,
            "unsettled": settings.pace.unsettled_seconds * 1_000,
        },
        "answers": settings.answers_per_second,
        "off": settings.ended,
        "appliances": config.steering.appliances,
    });
    (routes, steering)
}
