"""One vendor library each; nothing else imports them."""
