"""Two parties from their client's side.

parties     one channel each; calls that go to both at once
answers     two shares to logits or labels, and which of them can be right
session     one model at two parties: what was pinned, and the exchange of shares
"""
