//! Who asks the control plane, and what he may: a box by its certificate, an operator by his token.
//!
//! Where operators have an authority of their own, a token counts only beside a certificate of it.
//! That one lets nobody be a box, nor a box's lets anybody be an operator.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::answers::of_state;
use super::{Asker, Now, PlaneError};
use crate::control::asking::{Said, refusal};
use crate::control::issuer::{Subject, subject};
use crate::control::state::{State, StateError};
use crate::purge::{Role, Tokens};

/// Whose certificates count, for whom.
pub(super) struct Clients {
    /// Whoever one of the others verifies.
    any: Arc<dyn ClientCertVerifier>,
    boxes: Arc<dyn ClientCertVerifier>,
    operators: Option<Arc<dyn ClientCertVerifier>>,
}

impl Clients {
    /// Boxes have certificates of `ours`, operators of `theirs`, if there are any.
    pub(super) fn new(
        ours: &CertificateDer<'static>,
        theirs: &[CertificateDer<'static>],
    ) -> Result<Clients, PlaneError> {
        let all = [std::slice::from_ref(ours), theirs].concat();
        let operators = (!theirs.is_empty()).then(|| verifier(theirs)).transpose()?;
        Ok(Clients {
            any: verifier(&all)?,
            boxes: verifier(std::slice::from_ref(ours))?,
            operators,
        })
    }

    /// What hands are shaken by.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.any.clone()
    }

    /// The box that asks.
    pub(super) fn appliance(
        &self,
        asker: &Asker,
        state: &State,
        now: Now,
    ) -> Result<Subject, Said> {
        let Some(certificate) = &asker.certificate else {
            let text = "a box shows its certificate here; `tidegate control code NAME` makes a \
                        code that it is given one for";
            return Err(refusal(StatusCode::UNAUTHORIZED, text));
        };
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.seconds()));
        // It was verified when it connected; meanwhile it may have ended.
        let verified = self.boxes.verify_client_cert(certificate, &[], at);
        let Some(who) = subject(certificate).filter(|_| verified.is_ok()) else {
            let text = "this certificate is none of a box, or has ended: enrol it again";
            return Err(refusal(StatusCode::FORBIDDEN, text));
        };
        match state.known().is_revoked(&who) {
            true => Err(of_state(StateError::Revoked)),
            false => Ok(who),
        }
    }

    /// The operator who asks.
    pub(super) fn operator(
        &self,
        tokens: &Option<Arc<Tokens>>,
        fields: &HeaderMap,
        asker: &Asker,
    ) -> Result<Arc<str>, Said> {
        let (role, name) = self.bearer(tokens, fields, asker)?;
        match role {
            Role::Operator => Ok(name),
            Role::Viewer => {
                let text = format!("{name} may look, and nothing else: show an operator's token");
                Err(refusal(StatusCode::FORBIDDEN, &text))
            }
        }
    }

    /// Who looks on.
    pub(super) fn viewer(
        &self,
        tokens: &Option<Arc<Tokens>>,
        fields: &HeaderMap,
        asker: &Asker,
    ) -> Result<Arc<str>, Said> {
        self.bearer(tokens, fields, asker).map(|(_, name)| name)
    }

    fn bearer(
        &self,
        tokens: &Option<Arc<Tokens>>,
        fields: &HeaderMap,
        asker: &Asker,
    ) -> Result<(Role, Arc<str>), Said> {
        if let Some(operators) = &self.operators {
            let shown = asker.certificate.as_ref();
            let verified = shown.map(|one| {
                operators.verify_client_cert(one, &asker.intermediates, UnixTime::now())
            });
            if !matches!(verified, Some(Ok(_))) {
                let text = "operators show a certificate of `control.operators_ca` here";
                return Err(refusal(StatusCode::FORBIDDEN, text));
            }
        }
        let Some(tokens) = tokens else {
            let text = "nobody may ask this; write `control.token_file` in the configuration, the \
                        path of a file with a token";
            return Err(refusal(StatusCode::FORBIDDEN, text));
        };
        let text = match fields.contains_key(AUTHORIZATION) {
            true => "this is no token of `control.token_file`",
            false => "show a token of `control.token_file`: `Authorization: Bearer TOKEN`",
        };
        let bearer =
            tokens.bearer(fields).ok_or_else(|| refusal(StatusCode::UNAUTHORIZED, text))?;
        Ok((bearer.role, bearer.name.clone()))
    }
}

fn verifier(of: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, PlaneError> {
    let mut roots = RootCertStore::empty();
    for one in of {
        roots.add(one.clone()).map_err(|error| PlaneError::Tls(error.to_string()))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
        .allow_unauthenticated()
        .build();
    verifier.map_err(|error| PlaneError::Tls(error.to_string()))
}
