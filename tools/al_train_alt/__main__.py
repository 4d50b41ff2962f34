"""python -m al_train_alt"""

from al_train_alt import main

main()
