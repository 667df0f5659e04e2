//! Kubernetes' quantities (`500m`, `64Mi`) and percentages.
//!
//! Source: the Kubernetes API reference, "Quantity" and "IntOrString".

/// Thousandths of a processor, rounded up: `2`, `0.5`, `250m`.
#[must_use]
pub fn cpu_millis(text: &str) -> Option<u32> {
    let thousandths = scaled(text, &[("m", 1.0)], 1000.0)?;
    (1.0..=f64::from(u32::MAX)).contains(&thousandths).then(|| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within bounds
        let millis = thousandths as u32;
        millis
    })
}

/// Bytes, rounded up: `67108864`, `64Mi`, `1.5G`.
#[must_use]
pub fn memory_bytes(text: &str) -> Option<u64> {
    const KI: f64 = 1024.0;
    let units = [
        ("Ki", KI),
        ("Mi", KI * KI),
        ("Gi", KI * KI * KI),
        ("Ti", KI * KI * KI * KI),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
    ];
    let bytes = scaled(text, &units, 1.0)?;
    // A double holds every whole number up to 2^53 exactly: 8 PiB.
    (1.0..=9e15).contains(&bytes).then(|| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within bounds
        let bytes = bytes as u64;
        bytes
    })
}

/// `25%` of `whole`, rounded up or down; `None` if it is not a percentage.
#[must_use]
pub fn percent_of(text: &str, whole: u16, up: bool) -> Option<u16> {
    let percent: u32 = text.strip_suffix('%')?.parse().ok()?;
    let product = u32::from(whole).checked_mul(percent)?;
    u16::try_from(if up { product.div_ceil(100) } else { product / 100 }).ok()
}

fn scaled(text: &str, units: &[(&str, f64)], plain: f64) -> Option<f64> {
    let unit = units.iter().find(|(unit, _)| text.ends_with(unit));
    let (digits, factor) = match unit {
        Some((unit, factor)) => (&text[..text.len() - unit.len()], *factor),
        None => (text, plain),
    };
    let plain_number =
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = plain_number.then(|| digits.parse().ok())??;
    Some((number * factor).ceil())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, millis) in [("2", 2000), ("0.5", 500), ("250m", 250), ("0.0001", 1)] {
            assert_eq!(cpu_millis(text), Some(millis), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "0", "1e3", "9999999999"] {
            assert_eq!(cpu_millis(bad), None, "{bad}");
        }
        for (text, bytes) in
            [("64Mi", 64 << 20), ("1k", 1000), ("128", 128), ("1.5Ki", 1536), ("1Gi", 1 << 30)]
        {
            assert_eq!(memory_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "Mi", "-1", "64MB", "0", "inf", "NaN", "1m"] {
            assert_eq!(memory_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn percentages_round_as_kubernetes_rounds_them() {
        assert_eq!(percent_of("25%", 3, true), Some(1));
        assert_eq!(percent_of("25%", 3, false), Some(0));
        assert_eq!(percent_of("100%", 3, false), Some(3));
        assert_eq!(percent_of("25", 3, true), None);
        assert_eq!(percent_of("-1%", 3, true), None);
    }
}
