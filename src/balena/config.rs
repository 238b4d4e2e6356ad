//! config.json: is it one that a device can come up with.

use super::json;
use crate::error::Error;

/// The largest config.json that is taken, in bytes. Real ones are under 20 KiB, CA bundles included.
pub const MAX_LENGTH: usize = 128 * 1024;

/// The keys without which the new OS cannot provision itself, and what stands in for each.
const REQUIRED: [&[&str]; 4] =
    [&["apiEndpoint"], &["applicationId"], &["deviceType"], &["apiKey", "deviceApiKey"]];

/// Checks a config.json. Values, some of which are keys, never get into a message.
pub fn check(bytes: &[u8], name: &str) -> Result<(), Error> {
    let refuse = |why: &str| Error::refused("reading the configuration", name, why);
    let mut seen = [false; REQUIRED.len()];
    let found = json::check_object(bytes, |member| {
        let key = bytes.get(member.key).unwrap_or_default();
        let value = bytes.get(member.value).unwrap_or_default();
        let is_set = !matches!(value, b"null" | b"\"\"");
        for (names, seen) in REQUIRED.iter().zip(&mut seen) {
            *seen |= is_set && names.iter().any(|name| name.as_bytes() == key);
        }
    });
    if let Err(problem) = found {
        return Err(refuse(&problem.text()).advice("correct the file: it is not valid JSON"));
    }
    match REQUIRED.iter().zip(seen).find(|(_, seen)| !seen) {
        None => Ok(()),
        Some((names, _)) => {
            let name = names.first().copied().unwrap_or_default();
            let why: crate::text::Text<80> = crate::text!("the key {} is missing or empty", name);
            Err(refuse(&why).advice("download it again for this fleet"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    fn refusal(text: &str) -> String {
        let text: Text<500> = crate::text!("{}", check(text.as_bytes(), "c.json").unwrap_err());
        text.to_string()
    }

    #[test]
    fn a_complete_one_passes() {
        for key in ["apiKey", "deviceApiKey"] {
            let text = format!(
                "{{\"apiEndpoint\":\"e\",\"applicationId\":\"7\",\"deviceType\":\"t\",\"{key}\":\"k\"}}"
            );
            check(text.as_bytes(), "c.json").unwrap();
        }
    }

    #[test]
    fn what_is_missing_is_named_and_no_value_is_shown() {
        let text =
            "{\"apiEndpoint\":\"e\",\"applicationId\":7,\"deviceType\":\"t\",\"other\":\"sEcReT\"}";
        assert!(refusal(text).contains("apiKey"));
        assert!(!refusal(text).contains("sEcReT"));
        assert!(refusal("{\"apiKey\":\"sEcReT\" x}").contains("line 1, column 20"));
        assert!(!refusal("{\"apiKey\":\"sEcReT\" x}").contains("sEcReT"));
        let empty =
            "{\"apiEndpoint\":\"\",\"applicationId\":7,\"deviceType\":\"t\",\"apiKey\":\"k\"}";
        assert!(refusal(empty).contains("apiEndpoint"));
    }
}
