"""Why an answer is what it is, without giving up privacy.

target      which number of an answer is explained
units       the words or phrases that are left out in turn
occlusion   what an answer loses without each of them: every variant is embedded here and sent encrypted
exact       what each word or feature adds to a linear head whose weights are public: nothing is sent
render      for a terminal and as a page
"""

from secure_infer_client.explanation.exact import contributions
from secure_infer_client.explanation.explanation import Explanation, Method

__all__ = ["Explanation", "Method", "contributions"]
