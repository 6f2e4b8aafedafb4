//! Whether a request is let in; `src/overload.rs` has the order in which it is not.

use std::time::Instant;

use crate::delivery::Delivery;
use crate::delivery::error::DeliveryError;
use crate::delivery::record::Viewer;
use crate::overload::Arrived;

impl Delivery {
    /// Lets a request in, or says that there is too much to do.
    pub(super) fn admit(&self, viewer: &Viewer) -> Result<(), DeliveryError> {
        let (gate, connection) = (&self.shared.gate, &viewer.connection);
        gate.admit_request(viewer.client, Instant::now()).map_err(DeliveryError::Overload)?;
        if !connection.is_let_in.get() {
            let arrived =
                if connection.tls.is_some() { Arrived::ShakenHands } else { Arrived::Plain };
            gate.admit_viewer(arrived).map_err(DeliveryError::Overload)?;
            connection.is_let_in.set(true);
        }
        Ok(())
    }
}
