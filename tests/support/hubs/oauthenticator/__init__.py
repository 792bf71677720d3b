"""What the Hub of a test imports in place of OAuthenticator."""
