"""What the de-identification benchmark is composed of: sentences, hard negatives, and names that no list ships.

Everything is made up; nobody's record. Placeholders are filled by `deidentification.generate`; `{dx}` is a packaged
diagnosis text. The DEVELOPMENT sentences served to write the rules; the EVALUATION sentences did not, and published
figures are measured on those.
"""

from __future__ import annotations

DEVELOPMENT = (
    "Seen by Dr. {full} on {date} for {dx}.",
    "Patient {full}, MRN {mrn}, admitted {date}. Diagnosis: {dx}.",
    "Name: {full}  DOB: {date}  Dx: {dx}",
    "{dx}. Call daughter {first} at {phone}.",
    "{full} is a 54-year-old with {dx}, seen {date}.",
    "{dx}, discussed with {initialed}, MD; letter sent to {email}.",
    "Mrs {last} lives at {address}. {dx}.",
    "Impression: {dx}. Follow-up {date}. Signed, {full}",
    "{dx}. Records at {url}, patient ID {id}.",
    "Referred by {last} clinic? No: {full} denies chest pain; {dx}.",
    "SSN {ssn}. NHS number {nhs}. {dx} since {date}.",
    "{inverted}: {dx}, insurance no. {id}",
    "Pt {first} reports worsening; history of {dx} on {date}.",
    "Address: {address}. Tel {phone}. {dx}.",
    "{dx} noted by nurse {first} {last} during the visit of {date}.",
)

EVALUATION = (
    "Dear Dr {last}, thank you for referring {full} ({date}) with {dx}.",
    "{dx} diagnosed {date}; under the care of Prof. {full}.",
    "Reviewed today by {full}. {dx}, stable since {date}.",
    "Patient name: {full}. Home address: {address}. Problem: {dx}.",
    "I met {full} and her husband {first} in clinic. {dx}.",
    "PT: {full} | MRN: {mrn} | {dx}",
    "{title} {last} was admitted on {date} with {dx}. Discharged {date}.",
    "{dx}. Next of kin: {full}, {phone}.",
    "{full}, 67 y/o, presents with {dx}. Onset {date}.",
    "Discussed with {first} {last}, who agrees. {dx}.",
    "Contact {email} or {phone} about results for {dx}.",
    "{dx}. Electronically signed by {initialed}, MD on {date}",
    "Medical record number {mrn}; {dx}; policy number {id}.",
    "NHS no. {nhs}, {dx}, GP: Dr {full}, {address}",
    "{inverted} - {dx} - seen {date}",
    "Results for {full} show {dx}. See {url}.",
    "{first} complains of pain. Known {dx} since {date}.",
    "Mother {first} phoned from {phone}: child with {dx}.",
    "He moved to {address} last year. {dx}, account number {id}.",
    "Dictated by {last}, {first}, reviewed {date}. Assessment: {dx}.",
    "Surgeon {last} operated on {date} for {dx}; SSN {ssn}.",
    "{dx} (seen with Ms. {first} {last}, interpreter).",
    "Sister of {full} has {dx}. Portal: {url}",
    "{dx}. Kind regards, {full}, RN",
    "Carer {full} can be reached under {phone}. {dx}.",
    "Case discussed at MDT with {title} {full} and Dr {last}. {dx}.",
    "Her son, {first}, lives at {address} and has {dx}.",
    "Appointment {date}, {address}. Reason: {dx}.",
    "Member ID {id}, {title} {full}, born {date}: {dx}",
    "Plan: {first} will return on {date}. {dx}. Email {email}.",
)

DEVELOPMENT_NEGATIVES = """
Parkinson disease|Parkinson's disease with dementia|Crohn's disease of the colon|Crohn disease|Down syndrome
Still's disease
Alzheimer disease, late onset|Hodgkin lymphoma, stage 3|non-Hodgkin lymphoma|Bell's palsy, left|Bell palsy
Graves disease
Graves' ophthalmopathy|Addison disease|Cushing syndrome|Paget's disease of the breast|Wilson disease|Marfan syndrome
Turner syndrome|Barrett's esophagus|Barrett esophagus without dysplasia|Hashimoto thyroiditis|Raynaud phenomenon
Sjögren syndrome|Huntington chorea|Tourette syndrome|Kaposi sarcoma|Burkitt lymphoma|Ewing sarcoma|Wilms tumor
Dupuytren contracture|Colles fracture of right radius|Smith fracture|Baker cyst behind the left knee|Bartholin cyst
Ménière disease|Behçet disease|Reiter syndrome|rose bengal staining of the cornea|Guillain-Barré syndrome|Lyme disease
Wolff-Parkinson-White syndrome|Charcot-Marie-Tooth disease|Stevens-Johnson syndrome|Ramsay Hunt syndrome
Foley catheter placed
Henoch-Schönlein purpura|Legg-Calvé-Perthes disease|Osgood-Schlatter disease|Budd-Chiari syndrome|Lou Gehrig disease
Glasgow Coma Scale 15|Apgar score 9 at 5 minutes|Wells score 4|Child-Pugh class B|Gleason score 7|Mallampati II
Babinski sign
McBurney point tenderness|Murphy sign positive|Romberg test negative|Trendelenburg gait|Hoffmann sign
Tinel sign at the wrist
history of Parkinson, on levodopa|known Hashimoto, euthyroid|has Crohn's, on infliximab|Prader-Willi syndrome
New York Heart Association class III|Ann Arbor stage II|West Nile virus|Rocky Mountain spotted fever
Coxsackie virus|Norwalk virus
Ross River fever|Legionella pneumonia|Salmonella typhi|E. coli urinary infection|H. pylori gastritis
S. aureus bacteremia
Clostridium difficile colitis|Candida albicans|Borrelia burgdorferi|Klebsiella pneumoniae|Bartonella henselae
Epstein-Barr virus|Kleihauer test|Coombs test positive|Jarisch-Herxheimer reaction|Zollinger-Ellison syndrome
Takayasu arteritis
metoprolol 25 mg twice daily|Lipitor 20 mg at night|Tylenol 500 mg every 6 hours|Lantus 10 units|Advair Diskus inhaler
Keppra 500 mg|Eliquis 5 mg|Plavix 75 mg and Aspirin 81 mg|Yasmin since adolescence|Allegra 180 mg|Humira injection
Zoloft 50 mg
Patient denies chest pain|Patient Denies Chest Pain And Shortness Of Breath|Chronic Obstructive Pulmonary Disease
ACUTE MYOCARDIAL INFARCTION OF ANTERIOR WALL|SEEN IN CLINIC FOR HYPERTENSION|seen by Cardiology|reviewed by Neurology
Referred by Orthopedics for knee pain|discussed with Radiology|seen by Physical Therapy|Mother has diabetes
Doctor advised rest|Nurse visit for dressing change|Contact dermatitis|Baby blues|Partner violence
Consultant review pending
Will follow up|May repeat in 6 hours|Mark the site before surgery|Hope to discharge soon|Grant leave from the ward
Rose spots on abdomen|Young adult with asthma|White blood cell count|Brown sputum|Green discharge|Long QT syndrome
Bland diet
may 5 mg be given|march hemoglobinuria|sun exposure|fall from ladder|120/80 mmHg|BP 135/85|5 mg|0.5 mL|type 2 diabetes
type 1 diabetes mellitus|C5-C6 disc herniation|L4-L5 stenosis|factor VIII deficiency|stage 3 kidney disease|T12 fracture
T1N0M0|GCS 14/15|power 4/5 in all limbs|HbA1c 7.2%|INR 2.5|pH 7.35-7.45|Na 138, K 4.2|SpO2 95% on 2 L|FEV1 1.8 L|CD4 350
platelets 150,000|hCG 5000 IU|CA 19-9 elevated|CA-125|CK 1200|E11.9|Z12.31|S72.001A|I10|C50.911|22q11.2 deletion|46,XX
HLA-B27|BRCA1 mutation|vitamin B12 deficiency|vitamin D deficiency|hepatitis B surface antigen|COVID-19|H1N1 influenza
trisomy 21|Rh(D) negative|G6PD deficiency|P2Y12 inhibitor|10-20-30 mg|1-0-1|every 12 hours|24-hour urine|3 of 5 sets
room 3 air 21%|body mass index 40.0-44.9|APACHE II 18|ECOG 1|PHQ-9 12|MMSE 24/30|ASA III|NYHA II|TNM stage IV
Salter-Harris II
St. John's wort|Gram stain|Swan-Ganz catheter|Kirschner wire|Hickman line|Port-a-Cath in place|Whipple procedure
Ross procedure
Nissen fundoplication|Hartmann procedure|Billroth II|Ringer lactate|Heimlich maneuver|Valsalva maneuver|Epley maneuver
"""

EVALUATION_NEGATIVES = """
Whipple disease|Gaucher disease type 1|Pompe disease|Tay-Sachs disease|Niemann-Pick disease|Fabry disease|Conn syndrome
Caplan syndrome|Felty's syndrome|Goodpasture syndrome|Alport syndrome|Fanconi anemia|Sheehan syndrome|Kallmann syndrome
Klinefelter syndrome|Edwards syndrome|Patau syndrome|Noonan syndrome|Rett syndrome|Angelman syndrome|DiGeorge syndrome
Duchenne muscular dystrophy|Friedreich ataxia|Lewy body dementia|Pick disease|Creutzfeldt-Jakob disease
Wernicke encephalopathy
Korsakoff psychosis|Todd's paralysis|Lambert-Eaton syndrome|Lennox-Gastaut syndrome|Arnold-Chiari malformation|Erb palsy
Hirschsprung disease|Meckel diverticulum|Mallory-Weiss tear|Zenker diverticulum|Gilbert syndrome|Peutz-Jeghers polyps
Monteggia fracture|Bennett fracture|Jones fracture of the fifth metatarsal|Pott fracture|Lisfranc injury
Hill-Sachs lesion
Bankart lesion|Charcot joint|Morton neuroma|Heberden nodes|Bouchard nodes|Osler nodes|Janeway lesions|Koplik spots
Roth spots
Virchow node|Kernig sign|Brudzinski sign|Phalen test|Lachman test|McMurray test|Weber and Rinne tests
Snellen chart 20/40
Braden scale 18|Karnofsky 80|Ranson criteria 3|Bishop score 6|Tanner stage III|Fitzpatrick type IV|Clark level III
Breslow 1.2 mm
Kawasaki disease|Takotsubo cardiomyopathy|Brugada syndrome|Eisenmenger syndrome|Tetralogy of Fallot
Ebstein anomaly|Hansen disease
Chagas disease|Zika virus|Marburg virus|Pneumocystis jirovecii|Toxoplasma gondii|Aspergillus fumigatus
Helicobacter pylori
Pseudomonas aeruginosa|Neisseria gonorrhoeae|Listeria meningitis|Coxiella burnetii|Treponema pallidum|N. meningitidis
Warfarin 5 mg daily|Metformin 1000 mg with meals|Xarelto 20 mg|Ozempic weekly|Synthroid 88 mcg|Celexa 20 mg|Ativan 1 mg
Jardiance 10 mg|Augmentin 875 mg|Bactrim DS|Nora-BE daily|Camila contraceptive pill|Farxiga started
Trelegy Ellipta|Brilinta 90 mg
Seen in Emergency for laceration|Examined by Psychiatry|Patient Reports Nausea And Vomiting|Father with hypertension
Signed consent obtained|Contact lens wearer|Sister chromatid exchange|Surgeon notified
Attending physician informed|Carer strain
ACUTE BRONCHITIS DUE TO RHINOVIRUS|Type 2 Diabetes Mellitus With Hyperglycemia|NO KNOWN DRUG ALLERGIES
Left Total Knee Replacement
Will need oxygen|May shower|Faith healing|Gray matter heterotopia|Black stool|Rich vascular supply|Long bone pain
Sweet syndrome
Hunter syndrome|Page kidney|Bishop collar|Bird fancier lung|King Kong hypothesis|Christmas disease|Lincoln sign
Pearl index
august appearance|in may she fell|135/85 mmHg|250 mg IV|2.5 mL/hr|type 1 diabetes|T8-T9 fusion|S1 radiculopathy
factor V Leiden
stage 4 pressure ulcer|GCS 8 (2/2/4)|7/10 pain|grade 3/6 murmur|HbA1c 8.1|Hb 9.2 g/dL|K 3.4|troponin 0.04|eGFR 45
PSA 6.1|TSH 2.3
WBC 12,300|creatinine 1.2|J45.909|M54.5|F32.1|T81.4XXA|del(5q)|47,XXY|JAK2 V617F|PD-L1 60%|CD20 positive
IgA nephropathy|beta-2 agonist
every 6-8 hours|2 x 500 mg|1-1-1-1|3/12 months|Parkland formula|6 Park Ward|Ward 12|bed 4|20 West units
18 French catheter|12 lead ECG
"""

# Held back from the shipped lists: drawn at random from 61 locales of Faker 40.54.0 (MIT, Copyright (c) 2012 Daniele
# Faraglia), without names that are words of the embedder's vocabulary or of ICD-10-CM, occur in three or more locales, or are
# among the commonest of the United States: what is left is rarer than the names of most patients.
HELD_OUT_GIVEN = """
Hüseynqulu Nigar Tofiq Ağca Brilyant Mikuláš Květoslava Lada Vítězslav Judita Richardt Torben Naja Frederikke
Gundhild Maksim Anabella Lennart Alara Sofija Umut Astrit Pierrette Bojan Donatella Enno Thilo Siegbert
Margarethe Frederike Deniis Erva Eliona Cataleya Janick Félicie Elvire Claudy Heloise Maisy Normand Ansel Dawna
Elihu Debera Martyn Sian Bethan Corrie Alastair Grainne Macauley Keely Gaurangi Omya Naveen Bhavya Yamini Ngari
Okoth Sylivia Christabel Mungai Shayne Beauden Mahi Arlo Lynette Ghiyaath Waajid Aarif Ossama Qasif Patchaploy
Puntira Chawin Kamolchanok Chayapat Tracie Traci Meagan Gwendolyn Rickey Constantino Luisina Agostina Alfonsina
Nahuel Ona Arnau Laia Aleix Biel Custodio Paulino Tulio Christofer Yenny Arbey Cristhian Derly Maicol Alveiro
Olegario Plinio Adoración Javi Brunilda Asunción Esparta Conchita Zeferino Itzel Jevgeni Riina Mihhail Urmas
Malle Eelis Josefiina Hellevi Teija Atte Baudouin Gabin Imane Louane Josianne Kahina Narimane Samy Chanez Mounir
Anastasie Margaud Honoré Capucine Nath Briget Treacy Deborrah Trina Siobain Aminatu Hauwa Kabiru Hafsat Danjuma
Juraj Ruža Draga Josipa Rozalija Márton Barnabás Ildikó Györgyi Balázs Danuja Daryani Suci Ganep Jaka Chinyere
Ogechi Chizoba Nnamdi Okechukwu Sólkatla Dýrmundur Ísleifur Ásleif Ásdís Ugolino Evangelista Clelia Jacopo
Coluccio Rika Ryohei Asuka Sotaro Yumiko Smiltė Aurelija Augustas Linas Armandas Aigars Karlīna Gunta Sanita
Normunds Lutgart Ferre Lieven Josepha Fatiha Meike Loes Lenn Dylano Thijs Reidun Øyvind Håkon Eivind Espen
Łukasz Wiktor Ewelina Justyna Juliusz Kaique Breno Manuella Maysa Otávio Benjamim Soraia Micael Margarida Vasco
Basarab Toma Ruxandra Sanda Zamfira Oldrich Rastislav Eunika Margita Františka Borut Zvonko Boštjan Drago Stanka
Svante Annikki Alvar Ingvar Tage Farhiya Shani Shawana Adimu Madoa Tulun Eryıldız Nili Tuğçe Mecide Fiifi
Kwamena Kwesi Joojo Kwame Rayyona Farzona Shahina Muslima Zubayr Khoa Phương Huy Nhiên Linh Babawale Adenike
Ajoke Babatunji Omowumi Qiang Xiulan Xiuying Jie Guiying Nonhlanhla Nomasonto Gugu Nozizwe Zakhele
"""

HELD_OUT_FAMILY = """
Abdullaoğlu Axundov Ağaoğlu Babayeva Şükürov Beneš Macháček Polák Nováková Stejskal Jespersen Jepsen Frederiksen
Ravn Andreasen Schilcher Göschl Froschauer Rechberger Peham Wirz Portmann Bieri Steiger Schärer Hermighausen
Döhn Gertz Scholl Huhn Wille Sprenger Gassner Ospelt Oehri Goerens Steinmetz Weis Zimmer Kirsch Pfannerstill
Huel Hermiston Streich Nader Parkin Rowley Mistry Chadwick Howells Kilbane Quirke Mackle McCarney Tutty
Chakrabarti Biswas Nath Gulati Choudhury Wangari Ngui Serem Marwa Dahir Olawale Okafor Chukwu Ekwueme Adetokunbo
Shailer Eglinton Rossiter Searle McIsaac Mahbeer Waajid Aadil Sadan Saabir Srisoontorn Kittakun Siripaiboo
Vethayasas Kongsri Wilkerson Pennington Deleon Wiggins Terrell Pereyra Maidana Cardozo Aguero Mansilla Falcó
Gual Gimeno Bárcena Barroso Cárcamo Oyarzo Troncoso Cisterna Moncada Perdomo Riascos Zuluaga Henao Bohórquez
Cuenca Quero Arregui Vizcaíno Rius Negrete Ulibarri Maestas Magaña Montaño Taal Maslov Soots Kaljurand Teesalu
Huttunen Seppänen Markkanen Leskinen Huovinen Duquesne Kinet Oger Nizet Dieudonné Ferland Paré Demers Fillion
Pouliot Duvanel Chopard Deladoëy Joye Candaux Salmi Chaoui Belkacemi Nouar Belbachir Faure Collet Bazin Sauvage
Lebreton Giroux Pépin Marcotte Lafontaine Beauregard Gineá Gubain Achaorainn Cheara Cróil Danjuma Abubakar Tukur
Zubairu Buhari Brajković Darojković Tonc Terzić Cvrtila Borbély Rácz Lukács Papp Faragó Mangunsong Lazuardi
Usamah Anggriawan Maulana Ezeugo Iroha Ojukwu Eze Nwosu Hildimars Funis Holtis Jakops Finns Garzoni Paganini
Mannoia Florio Storladi Okada Inoue Ishii Nakagawa Watanabe Petrauskas Ambrasas Naujokas Povilonis Jankauskas
Rubene Līce Krieviņa Lapsa Turiņš Schoofs Verbruggen Boeckx Sels Vermeiren Mansveld Kriens Cornelisz Kathagen
Tuithof Abrahamsen Antonsen Andreassen Hanssen Halvorsen Macedo Cirino Vieira Rezende Sampaio Nascimento Antunes
Assunção Guerreiro Loureiro Oprea Popescu Nemeș Tabacu Georgescu Pušková Nôta Pavolová Cíger Machnáčová Toplak
Bezjak Janežič Rupnik Horvat Wahlström Nordlund Krantz Hägg Frid Wanjala Kipruto Dhadho Njeri Maina Ülker Bilgin
Akça Tarhan Soylu Daako Otuo Bona Ahortor Akoaa Madinaeva Isfandiyorov Hasanov Yasinov Zakariyoev Phạm Hoàng
Dương Đặng Bùi Fadipe Faleti Fagunwa Oyinlola Afolayan Qiu Xie Luo Liao Qian Khaphela Thembela Nyazitla
Thabekhulu Msokazi
"""
