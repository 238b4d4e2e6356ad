//! What the API is told about a device whose OS was replaced: the bodies of PATCH requests.

use crate::text::{Text, Writer};
use ufmt::{uWrite, uwrite};

/// It has worked out, as the dashboard shows it (takeover 0.10.6, `notify_hup_progress`).
pub const DONE: &[u8] = b"{\"provisioning_progress\":\"100\",\
    \"provisioning_state\":\"Update successful, rebooting\",\"status\":\"configuring\"}";

/// It has not.
pub const FAILED: &[u8] = b"{\"provisioning_progress\":\"100\",\
    \"provisioning_state\":\"OS update failed\",\"status\":\"configuring\"}";

/// What is not true any more of a device that the API knows already, and the number of its new device type where that
/// has changed. The supervisor of the new OS cannot live with the release that the old one should run.
pub fn migrated(device_type_id: Option<u64>) -> Text<200> {
    const GONE: &str = "{\"os_version\":null,\"should_be_operated_by__release\":null,\
        \"supervisor_version\":null,\"should_be_managed_by__release\":null";
    Text::build(&mut |body: &mut Writer<'_>| {
        body.write_str(GONE)?;
        if let Some(id) = device_type_id {
            uwrite!(body, ",\"is_of__device_type\":{}", id)?;
        }
        body.write_str("}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balena::json;

    #[test]
    fn every_body_is_json_with_what_balena_expects() {
        for (body, state) in [(DONE, "Update successful, rebooting"), (FAILED, "OS update failed")]
        {
            let wanted = format!(
                "{{\"provisioning_progress\":\"100\",\"provisioning_state\":\"{state}\",\"status\":\"configuring\"}}"
            );
            assert_eq!(core::str::from_utf8(body), Ok(&wanted[..]));
            json::check_object(body, &mut |_| ()).unwrap();
        }
        let gone = "\"os_version\":null,\"should_be_operated_by__release\":null,\"supervisor_version\":null,\"should_be_managed_by__release\":null";
        for (id, wanted) in [
            (None, format!("{{{gone}}}")),
            (Some(u64::MAX), format!("{{{gone},\"is_of__device_type\":{}}}", u64::MAX)),
        ] {
            let body = migrated(id);
            assert_eq!(&*body, wanted);
            json::check_object(body.as_bytes(), &mut |_| ()).unwrap();
        }
    }
}
