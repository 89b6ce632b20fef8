"""The authorization server: who is this client, is its device's posture good, and what may its token say?"""
