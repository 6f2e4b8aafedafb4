//! Tokens that other implementations have made, and have published or were run to make.

use super::*;

/// Of Eyevinn's `node-cat`: its README and its tests.
#[test]
fn tokens_of_node_cat_are_read_as_they_are_meant() {
    let keys = keys(&json!({
        "coap://jonas.example.com": { "keys": [published("akamai_key_hs256")] },
        "eyevinn": { "id": "one", "keys": [published("akamai_key_hs256")] },
    }));
    let at = |now| Asked { now, ..asked("https://example.com/content/path/file.m3u8") };
    let expired = "2D3RhEOhAQWhBFBha2FtYWlfa2V5X2hzMjU2U6MEGmfXP_YGGmfXQAsFGmfXQAtYINTT_KlOyha\
                   V6NaSxFXkqJWfBagSkPkem10dysoA-C0w";
    assert_eq!(judged(expired, &keys, &at(1_742_159_862.0)), Err(Denied::Expired));
    // It was never valid.
    assert_eq!(judged(expired, &keys, &at(1_742_159_861.0)), Err(Denied::Early));
    let lasting = "2D3RhEOhAQWhBFBha2FtYWlfa2V5X2hzMjU2U6MEGnUCOrsGGmfXRKwFGmfXRKxYIOM6yRx830u\
                   qAamWFv1amFYRa5vaV2z5lIQTqFEvFh8z";
    assert_eq!(judged(lasting, &keys, &at(NOW)), Ok(()));
    let named = "2D3RhEOhAQWhBFBha2FtYWlfa2V5X2hzMjU2WCijAXgYY29hcDovL2pvbmFzLmV4YW1wbGUuY29tB\
                 hpn1JipBRpn1JipWCCX4nQb8SYQoa0SFLxE2Rh35DdTjoA9TzOSy1IP9O1BGQ";
    let verified = Verified::of(named, &keys, &Settings::default()).unwrap();
    assert_eq!(verified.issuer(), "coap://jonas.example.com");
    let said = json!({ "iss": "coap://jonas.example.com", "iat": 1741985961, "nbf": 1741985961 });
    assert_eq!(Value::Object(verified.claims()), said);
    let another = "2D3RhEOhAQWhBFBha2FtYWlfa2V5X2hzMjU2VKMBZWpvbmFzBhpn12U-BRpn12U-WCDf1xHvhcnv\
                   yXUxd-DP4RAbayc8nC2PLJPPPbF3S00ruw";
    assert_eq!(judged(another, &keys, &at(NOW)), Err(Denied::Issuer));
    let several = "2D3RhEOhAQWhBFBha2FtYWlfa2V5X2hzMjU2V6MDgmNvbmVjdHdvBhpn12R8BRpn12R8WCAdnSbU\
                   N4KbIvaHLn-q4f4YRpfq6ERYotByjbIyZ-EkfQ";
    let of = |us: &str| {
        let settings = Settings { audience: Some(us.to_owned()), ..Settings::default() };
        let verified = Verified::of(several, &keys, &settings).unwrap();
        verified.admits(&at(NOW), |_| true).map(drop).map_err(|refused| refused.denied)
    };
    assert_eq!(["one", "two", "three"].map(of), [Ok(()), Ok(()), Err(Denied::Audience)]);
    // Padded, its maps said to be maps, and the key's id where nobody looks for it.
    let tagged = "2D3RhEOhAQW5AAFhNExTeW1tZXRyaWMyNTZYO9kBA6IBZ2V5ZXZpbm4ZATjZAQOjANkBA6EAZWh0dH\
                  BzA9kBA6EBaC9jb250ZW50CNkBA6EAZS5tM3U4WCCD42NQN46M44nvyg4eD4tKUo2-spMlXhtOHW3\
                  IiUFiXg==";
    assert_eq!(judged(tagged, &keys, &at(NOW)), Ok(()));
    let elsewhere = Asked { uri: "https://example.com/content/path/file.ts", ..at(NOW) };
    assert_eq!(judged(tagged, &keys, &elsewhere), Err(Denied::Uri));
    // Its first ones were of the hexadecimal text of their claims.
    let text = "0YRDoQEFoQRMU3ltbWV0cmljMjU2eDZkOTAxMDNhMTAxNzU2MzZmNjE3MDNhMmYyZjYxNzMyZTY1Nzg2M\
                TZkNzA2YzY1MmU2MzZmNmRYIDL8dIteq8pMXXX9oL4eo2NX1kQUaselV6p_JHSEVXWX";
    assert_eq!(judged(text, &keys, &at(NOW)), Err(Denied::Malformed));
}

/// Of Quicr's `cat-token`: the vectors of its tests.
#[test]
fn tokens_of_cat_token_are_read_as_they_are_meant() {
    let secret: Vec<u8> = (0..32).collect();
    let hmac = json!({ "kty": "oct", "kid": "h", "alg": "HS256", "k": encoded(&secret) });
    let coordinate = |text| encoded(&unhex(text).unwrap());
    let x = "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6";
    let y = "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
    let ecdsa = json!({ "kty": "EC", "kid": "e", "alg": "ES256", "crv": "P-256",
        "x": coordinate(x), "y": coordinate(y) });
    let keys = keys(&json!({
        "https://auth.example.com": { "id": "https://relay.example.com", "keys": [hmac, ecdsa] },
        "https://issuer.moq.example": { "id": "https://relay2.example.com", "keys": [hmac] },
    }));
    let now = 1_700_003_600.0;
    let here = asked("https://example.com/live/a");
    let there = Asked { client: "203.0.113.50".parse().unwrap(), ..here };
    let minimal = "0YRIogEFEGNDQVSgWD-jAXgYaHR0cHM6Ly9hdXRoLmV4YW1wbGUuY29tA4F4GWh0dHBzOi8vcmVsYX\
                   kuZXhhbXBsZS5jb20EGmVVQoBYIBbKFqLU4kdlKK6FjZGwDyV6UH_lcoS_sT19bKHwZeIw";
    let full = "0YRIogEFEGNDQVSgWKuqAXgaaHR0cHM6Ly9pc3N1ZXIubW9xLmV4YW1wbGUCdnVzZXI6YWxpY2VAZXhh\
               bXBsZS5jb20DgngaaHR0cHM6Ly9yZWxheTEuZXhhbXBsZS5jb214Gmh0dHBzOi8vcmVsYXkyLmV4YW1w\
               bGUuY29tBBplVUKABRplU_EABhplU_EAB0p2ZWN0b3ItMDAyGQE2ARkBN4HYNETLAHEyGQE4oQOhAWYv\
               bGl2ZS9YICnBpmEs5tSSc_2MARa53svCh2YtW6XWfe-vr2_wwRJ4";
    let signed = "0oRIogEmEGNDQVSgWEmkAXgYaHR0cHM6Ly9hdXRoLmV4YW1wbGUuY29tA4F4HWh0dHBzOi8vbW9xL\
                  XJlbGF5LmV4YW1wbGUuY29tBBplVUKABRplU_EAWEDtjPWG8yukEPKzCXZC6zIlXI3FVengWMSAhICd9\
                  VeIe8XuSXSp71xFV8FVfeeZYotjTK-qG3TJNpaODJw6SPIi";
    let expired = "0YRIogEFEGNDQVSgWCKiAXgYaHR0cHM6Ly9hdXRoLmV4YW1wbGUuY29tBBpfXhAAWCDNInUDQ2qsHo\
                   8l8Gj0tzb1HIYIpBheVbVoItgT7Ua6aA";
    let early = "0YRIogEFEGNDQVSgWCijAXgYaHR0cHM6Ly9hdXRoLmV4YW1wbGUuY29tBBplVpQABRplVUKAWCArREpq\
                 UH1KiIrMzevyeLr6t_y-L6oheaJGUU9hwhYRbg";
    let stranger = "0YRIogEFEGNDQVSgWD-jAXgYaHR0cHM6Ly9ldmlsLmV4YW1wbGUuY29tA4F4GWh0dHBzOi8vcmVsY\
                    XkuZXhhbXBsZS5jb20EGmVVQoBYIOmQtbjAMxCnCDlMbHiF-XZlN1SV6QSqkZWTguttCpaC";
    let forged = "0YRIogEFEGNDQVSgWD-jAXgYaHR0cHM6Ly9hdXRoLmV4YW1wbGUuY29tA4F4GWh0dHBzOi8vcmVsYXk\
                  uZXhhbXBsZS5jb20EGmVVQoBYIOnKFqLU4kdlKK6FjZGwDyV6UH_lcoS_sT19bKHwZeIw";
    for (token, asked, becomes) in [
        (minimal, here, Ok(())),
        (full, there, Ok(())),
        (full, here, Err(Denied::Network)),
        (full, Asked { uri: URI, ..there }, Err(Denied::Uri)),
        (signed, here, Err(Denied::Audience)),
        (expired, here, Err(Denied::Expired)),
        (early, here, Err(Denied::Early)),
        (stranger, here, Err(Denied::Issuer)),
        (forged, here, Err(Denied::Signature)),
    ] {
        let now = if token == early { 1_700_000_000.0 } else { now };
        assert_eq!(judged(token, &keys, &Asked { now, ..asked }), becomes, "{token}");
    }
}

/// Of Fastly's `common-access-token` 0.2.7, which writes a key's id as bytes or as text.
#[test]
fn tokens_of_common_access_token_are_read_as_they_are_meant() {
    let keys = keys(&json!({ "fastly": { "id": "edge", "keys": [published("k")] } }));
    for token in [BINARY, TEXT] {
        let token = encoded(&unhex(token).unwrap());
        let verified = Verified::of(&token, &keys, &Settings::default()).unwrap();
        let at = |uri, method, now| {
            let asked = Asked { method, now, ..asked(uri) };
            let admitted = verified.admits(&asked, |used| used.id == "0708");
            admitted.map(|renewal| renewal.is_some()).map_err(|refused| refused.denied)
        };
        assert_eq!(at(URI, "GET", NOW), Ok(false));
        assert_eq!(at(URI, "HEAD", 1_999_999_999.0), Ok(true), "it is renewed in its last minute");
        assert_eq!(at("https://v.test/film/a1.m3u8", "GET", NOW), Err(Denied::Uri));
        assert_eq!(at("http://v.test/film/a.m3u8", "GET", NOW), Err(Denied::Uri));
        assert_eq!(at(URI, "POST", NOW), Err(Denied::Method));
    }
}

/// RFC 8392 appendix A.3, and one of PS256 that OpenSSL has signed.
#[test]
fn signatures_of_others_verify() {
    let coordinate = |text| encoded(&unhex(text).unwrap());
    let x = "143329cce7868e416927599cf65a34f3ce2ffda55a7eca69ed8919a394d42f0f";
    let y = "60f7f1a780d8a783bfb7a2dd6b2796e8128dbbcef9d3d168db9529971a36e7b9";
    let n = "oVwzC8aMPq0kJCT_QperuVQsx0gFbkiooJCY9QgZCwNf-LXxkuRuUNF4NP_QJac-_0g4CBQqSll9cSWw\
            oQzu57eYcubau4YNWWsQmUUKVO49pTMkfxlyBbd5Z0NA9FsYqIFz2nOt0GNMCBLhBegteTA6AVvmR7H7\
            q5f_3t1b72s2G2fWbFfkzKdygrb8KKEH_hXCNC_OTcDxEgn0jMDP2hvZNLCeJSZr_cOWzr2aup_8UmQT\
            pubG2Njvk_BZnBg0NXWpRrby3RLg70x9BoJIuYCYuY0KcdQWWaxrDeka62ks7T74an8gG2wp6OR2pfKc\
            NgZX9MRMTkht8DCYPdmzNQ";
    let keys = keys(&json!({
        "coap://as.example.com": { "id": "coap://light.example.com", "keys": [
            { "kty": "EC", "kid": "AsymmetricECDSA256", "alg": "ES256", "crv": "P-256",
              "x": coordinate(x), "y": coordinate(y) } ] },
        "rsa": { "keys": [ { "kty": "RSA", "kid": "r", "alg": "PS256", "n": n, "e": "AQAB" } ] },
    }));
    let rfc = "d28443a10126a104524173796d6d657472696345434453413235365850a701756 \
               36f61703a2f2f61732e6578616d706c652e636f6d02656572696b77037818636f \
               61703a2f2f6c696768742e6578616d706c652e636f6d041a5612aeb0051a5610 \
               d9f0061a5610d9f007420b7158405427c1ff28d23fbad1f29c4c7c6a555e601d \
               6fa29f9179bc3d7438bacaca5acd08c8d4d4f96131680c429a01f85951ecee74 \
               3a52b9b63632c57209120e1c9e30";
    let rfc = encoded(&unhex(&rfc.replace(' ', "")).unwrap());
    let at = |now| Asked { now, ..asked(URI) };
    assert_eq!(judged(&rfc, &keys, &at(1_444_064_943.0)), Ok(()));
    assert_eq!(judged(&rfc, &keys, &at(1_444_064_944.0)), Err(Denied::Expired));
    let pss = "2D3ShEeiATgkBEFyoEyiAWNyc2EEGnc1lABZAQCHit8SIUdz5houRwMAdmy0nAv-IuGLxsRJ0fYSOfSA\
              FxJSnCR6Ky_PVZ-9iGeeQOo5kpvMKf200y138qWKq7hyMLxyE3EFTg_AIgnnTeSAARfi9WF8u-Lt-Kz6\
              5knrND6ShGh4_Y7-yQUrBuaYu9qHo9_HWijRpjudDiCWD9E5rgpaOAft5UfCT5rwgUE_P2FKZI-FkGhl\
              sHzveDHXpAO0t429DZ4LfcKU8F17LavBkEeSgyCgn-fBBeI_E_adpa90oLLe1ea7pHhLHNH8jFPapLZf\
              u90Xqwy6YtwKNoCdDotmxXevNE4-TqwFpMWZdnntp62TlfsJNzPR_chRCEpW";
    assert_eq!(judged(pss, &keys, &at(NOW)), Ok(()));
    assert_eq!(judged(pss, &keys, &at(2_000_000_000.0)), Err(Denied::Expired));
}

/// What is minted here, as that verifies it too.
#[test]
fn what_is_minted_is_what_common_access_token_was_seen_to_verify() {
    let keys = keys(&json!({ "fastly": { "keys": [published("k")] } }));
    let claims = json!({ "iss": "fastly", "exp": 2_000_000_000, "catv": 1, "catm": ["GET"],
        "catu": { "path": { "prefix-match": "/film/" } } });
    let token = mint(claims.as_object().unwrap(), key(&keys, "k")).unwrap();
    assert_eq!(hex(&BASE64.decode(token).unwrap()), MINTED);
}

const MINTED: &str = "\
    d83dd18443a10105a104416b5829a51901398163474554190138a103a101662f66696c6d2f19\
    013601041a773594000166666173746c795820deb938eee2c881866338befeec7e871c6f1da6\
    cdffb380370a56feab5d511b04";
const BINARY: &str = "\
    d83dd18446a2010504416ba0588fac0166666173746c79026173036465646765041a77359400\
    051a3b9aca00061a3b9aca00074207081901340119013601190138a500a10065687474707301\
    a10266762e7465737403a101662f66696c6d2f07a10481685e5b612d7a5d2b2408a100652e6d\
    33753819013982634745546448454144190143a5000201187802183c0467782d746f6b656e06\
    8163613d62582041a9cdb99b1be80d1b93ae6c0878adff661bd02d5489797e29781597f2fdbe\
    09";
const TEXT: &str = "\
    d83dd18446a2010504616ba0588fac0166666173746c79026173036465646765041a77359400\
    051a3b9aca00061a3b9aca00074207081901340119013601190138a500a10065687474707301\
    a10266762e7465737403a101662f66696c6d2f07a10481685e5b612d7a5d2b2408a100652e6d\
    33753819013982634745546448454144190143a5000201187802183c0467782d746f6b656e06\
    8163613d625820e604818c453bab19632f89df1033f822e0f3bf056ee66f806e522b0425dfbc\
    8b";
