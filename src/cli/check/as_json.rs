//! A configuration as JSON, for programs: sizes in bytes, durations in milliseconds, shares in
//! percent.
//!
//! Values of fields sent to origins may be secrets and are left out.

use std::time::{Duration, SystemTime};

use http::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::steering;
use crate::access_log::Destination;
use crate::appliance::{LeftOut, connections_affordable, ram_kept_bytes};
use crate::config::{Config, Log, Ssd, SsdVolume};
use crate::moment::unix_seconds;
use crate::network::Network;
use crate::site::{
    CorsOrigins, Entrance, FieldEdits, Listed, Origin, Pace, QueryPolicy, Redirects, Rule, Site,
    Stands, ViewerFields,
};

/// What is wanted of an authority.
fn acme(config: &Config) -> Option<Value> {
    let acme = config.certificates.acme()?;
    let wanted = config.certificates.managed().map(|one| {
        let file = one.path.display().to_string();
        json!({ "file": file, "names": one.names })
    });
    Some(json!({
        "directory": acme.directory,
        "challenge": acme.challenge.as_str(),
        "certificates": wanted.collect::<Vec<_>>(),
    }))
}

/// All of it.
pub(super) fn config(config: &Config, left_out: &[LeftOut]) -> Value {
    let Config { fill, limits, .. } = config;
    let warnings = config.warnings.iter().map(ToString::to_string);
    let (routes, steering) = steering::as_json(config);
    json!({
        "file": config.file,
        "listeners": config.listeners.iter().map(|listener| json!({
            "kind": listener.kind.name(),
            "address": listener.address.to_string(),
            "congestion": config.congestion.of(listener.kind),
        })).collect::<Vec<_>>(),
        "proxies": {
            "proxy_protocol": words(&config.proxies.proxy_protocol),
            "forwarded": words(&config.proxies.forwarded),
            "forwarded_field": config.proxies.forwarded_field.as_str(),
        },
        "certificates": config.certificates.iter().map(|certificate| json!({
            "cert": certificate.path.display().to_string(),
            "names": certificate.names,
        })).collect::<Vec<_>>(),
        "acme": acme(config),
        "routes": routes,
        "steering": steering,
        "threads": { "workers": config.threads.workers, "fill": config.threads.fill },
        "memory": {
            "total": config.memory.total_bytes,
            "ram": config.memory.ram_bytes,
            "ram_kept": ram_kept_bytes(config),
        },
        "ssd": ssd(&config.ssd, left_out),
        "block_size": config.block_size.bytes(),
        "fill": {
            "window": fill.window_bytes,
            "connect_timeout": millis(fill.connect_timeout),
            "first_byte_timeout": millis(fill.first_byte_timeout),
            "progress_timeout": millis(fill.progress_timeout),
            "runs": fill.runs_max,
            "retries": fill.retries,
        },
        "limits": {
            "connections": limits.connections_max,
            "connections_affordable": connections_affordable(config),
            "header_timeout": millis(limits.header_timeout),
            "idle_timeout": millis(limits.idle_timeout),
            "slow_reader": {
                "bytes": limits.slow_reader.bytes,
                "period": millis(limits.slow_reader.period),
            },
            "drain_timeout": millis(limits.drain_timeout),
            "lag": millis(limits.overload.lag),
            "egress": limits.overload.egress_bytes,
            "handshakes": limits.overload.handshakes,
            "client": {
                "connections": limits.overload.client.connections,
                "requests": limits.overload.client.requests,
                "bits_v4": limits.overload.client.bits_v4,
                "bits_v6": limits.overload.client.bits_v6,
            },
        },
        "log": log(&config.log),
        "usage": { "months": config.usage_months },
        "sites": config.sites.iter().map(|one| site(one)).collect::<Vec<_>>(),
        "control": config.control.as_ref().map(super::control::as_json),
        "fleet": config.fleet.as_ref().map(super::fleet::as_json),
        "warnings": warnings.collect::<Vec<_>>(),
    })
}

fn log(log: &Log) -> Value {
    json!({
        "access": match &log.access {
            Destination::Off => "off".to_owned(),
            Destination::Stdout => "stdout".to_owned(),
            Destination::File(file) => file.display().to_string(),
        },
        "format": log.format.word(),
        "rotate": log.rotation.map(|rotation| json!({
            "size": rotation.bytes_max,
            "every": rotation.every.map(millis),
            "keep": rotation.keep,
        })),
        "ship": log.shipping.as_ref().map(|shipping| json!({
            "url": shipping.receiver.to_string(),
            "headers": shipping.fields.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            "spool": shipping.spool.bytes_max,
            "folder": shipping.spool.folder,
            "batch": {
                "bytes": shipping.spool.batch_bytes,
                "period": millis(shipping.spool.batch_period),
            },
        })),
        "level": log.level.as_str(),
        "client_bits_v4": log.personal.client_bits.v4,
        "client_bits_v6": log.personal.client_bits.v6,
        "personal": {
            "query": log.personal.query.word(),
            "referer": log.personal.referer.word(),
            "user_agent": log.personal.user_agent.word(),
            "session": log.personal.session.word(),
        },
    })
}

fn ssd(ssd: &Ssd, left_out: &[LeftOut]) -> Value {
    let why = |at| left_out.iter().find(|one| one.index == at).map(|one| one.why.as_str());
    // Of what is out nobody knows a size, nor what is a multiple of it.
    let known = |volume: &SsdVolume, bytes| (!volume.kind.is_out()).then_some(bytes);
    json!({
        "admission": ssd.admission.as_str(),
        "engine": ssd.engine.as_str(),
        "index": ssd.index_bytes,
        "read_deadline": millis(ssd.read_deadline),
        "bypass": ssd.bypass_bytes,
        "state": ssd.state.display().to_string(),
        "volumes": ssd.volumes.iter().enumerate().map(|(at, volume)| json!({
            "name": volume.name,
            "path": volume.path.display().to_string(),
            "kind": volume.kind.as_str(),
            "size": known(volume, volume.size_bytes),
            "writes_per_day": known(volume, volume.writes_per_day_bytes),
            "weight": volume.weight,
            "left_out": why(at),
        })).collect::<Vec<_>>(),
    })
}

fn site(site: &Site) -> Value {
    json!({
        "name": site.name,
        "hosts": site.hosts,
        "origins": site.origins.iter().map(origin).collect::<Vec<_>>(),
        "share": site.share,
        "ssd_share": site.ssd_percent,
        "rules": site.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

/// One origin, with what is sent to it where nothing was said.
pub(super) fn origin(origin: &Origin) -> Value {
    json!({
        "url": format!("{}://{}:{}", origin.scheme.as_str(), origin.address, origin.port),
        "host": origin.authority(),
        "server_name": origin.tls_name(),
        "fields": names(&origin.fields),
        "own_ca": origin.roots.is_some(),
        "redirects": match origin.redirects {
            Redirects::Follow => "follow",
            Redirects::PassOn => "pass-on",
        },
        "connections": origin.connections_max,
    })
}

/// One rule.
pub(super) fn rule(rule: &Rule) -> Value {
    let lifetimes = rule.lifetimes;
    json!({
        "path": rule.pattern.to_string(),
        "lifetime": {
            "given": lifetimes.given.map(millis),
            "least": lifetimes.least.map(millis),
            "most": lifetimes.most.map(millis),
            "errors": millis(lifetimes.errors),
            "stale_while_revalidate": millis(lifetimes.stale_while_revalidate),
            "stale_if_error": millis(lifetimes.stale_if_error),
        },
        "query": match &rule.query {
            QueryPolicy::All => json!("all"),
            QueryPolicy::None => json!("none"),
            QueryPolicy::Only(names) => json!({ "only": names }),
            QueryPolicy::Except(names) => json!({ "except": names }),
        },
        "methods": rule.methods.names().collect::<Vec<_>>(),
        "request_body_bytes": rule.request_body_bytes_max,
        "viewers": rule.entrance.as_ref().map(|entrance| viewers(entrance)),
        "off_route": rule.off_route.as_str(),
        "purge_from": words(&rule.purge_from),
        "request_cache_control": rule.request_cache_control.as_str(),
        "content": rule.content.as_str(),
        "keep": rule.keep.as_str(),
        "request": request(rule),
        "response": edits(&rule.response),
        "cmsd": rule.cmsd.as_str(),
        "pace": match rule.pace {
            Pace::Off => json!("off"),
            Pace::Cmcd => json!("cmcd"),
            Pace::Bytes(bytes) => json!(bytes),
        },
        "prefetch": rule.foresight.as_str(),
        "cors": rule.cors.as_ref().map(|cors| json!({
            "origins": match &cors.origins {
                CorsOrigins::Any => json!("*"),
                CorsOrigins::Only(origins) => json!(origins),
            },
            "expose": cors.exposed.to_str().unwrap_or_default(),
            "headers": cors.allowed.to_str().unwrap_or_default(),
            "credentials": cors.credentials.as_str(),
            "max_age": millis(cors.max_age),
        })),
    })
}

/// Who comes in; moments in seconds since 1970.
fn viewers(entrance: &Entrance) -> Value {
    let listed = |listed: &Option<Listed>| {
        listed.as_ref().map(|Listed { here, file }| {
            json!({
                "here": here.iter().map(|one| one.to_string()).collect::<Vec<_>>(),
                "file": file.as_ref().map(|file| file.path.display().to_string()),
            })
        })
    };
    let is_in = |stands| stands == Stands::Inside;
    let at = |at: Option<SystemTime>| at.map(unix_seconds);
    json!({
        "countries": entrance.countries.as_ref().map(|countries| json!({
            "listed": countries.listed,
            "come_in": is_in(countries.these),
            "unknown_come_in": is_in(countries.unknown),
        })),
        "networks": {
            "only": listed(&entrance.networks.only),
            "except": listed(&entrance.networks.except),
        },
        "times": entrance.times.as_ref().map(|times| json!({
            "from": at(times.from),
            "until": at(times.until),
            "daily": times.daily.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "zone": times.zone.iana_name().unwrap_or("UTC"),
        })),
    })
}

fn request(rule: &Rule) -> Value {
    let mut request = edits(&rule.request);
    if let ViewerFields::Only(names) = &rule.viewer_fields {
        request["only"] = json!(names.iter().map(HeaderName::as_str).collect::<Vec<_>>());
    }
    request
}

fn words(networks: &[Network]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

fn edits(edits: &FieldEdits) -> Value {
    let remove: Vec<&str> = edits.remove.iter().map(HeaderName::as_str).collect();
    json!({ "remove": remove, "add": names(&edits.add) })
}

fn names(fields: &[(HeaderName, HeaderValue)]) -> Vec<&str> {
    fields.iter().map(|(name, _)| name.as_str()).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
