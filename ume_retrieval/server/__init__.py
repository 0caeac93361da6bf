"""OpenAI-compatible servers: where they are, how they are asked, and chats as their messages."""
